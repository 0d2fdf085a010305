#!/usr/bin/env bash
# Runs meshctl on a host of the demonstration that `make demo-up` keeps: scripts/demo-ctl.sh h1 members
set -euo pipefail
cd "$(dirname "$0")/.."
host=${1:?usage: scripts/demo-ctl.sh h1|h2|h3 [arguments of meshctl]}
shift
[ -f target/demo.env ] || { echo "no demonstration is up; run make demo-up" >&2; exit 1; }
line=$(grep "^$host: " target/demo.env | cut -d' ' -f2-)
# The daemons live in namespaces of their own: the process that holds them is entered first.
inside=$(cat target/demo.pid)
user=()
if [ "$(id -u)" != 0 ]; then user=(--user --preserve-credentials); fi
# shellcheck disable=SC2086
exec nsenter --target "$inside" "${user[@]}" --mount --net --pid -- $line "$@"
