#!/usr/bin/env bash
# Runs meshctl on a host of the demonstration that `make demo-up` keeps.
# usage: scripts/demo-ctl.sh HOST [ARGUMENT…]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
[ $# -ge 1 ] || { echo "usage: scripts/demo-ctl.sh HOST [ARGUMENT…]" >&2; exit 2; }
host="$1"
shift
[ -s target/demo.env ] && [ -s target/demo/pid ] || { echo "no demonstration is up; make demo-up" >&2; exit 3; }
line="$(sed -n "s/^$host: //p" target/demo.env)"
[ -n "$line" ] || { echo "no host $host; there are: $(cut -d: -f1 target/demo.env | xargs)" >&2; exit 2; }
# The kept demonstration's own first process, inside its namespaces.
outer="$(cat target/demo/pid)"
inner="$(ps -o pid= --ppid "$outer" | head -1 | tr -d ' ')"
read -r -a words <<<"$line"
enter=()
if [ -n "$inner" ] && [ "$(readlink "/proc/$inner/ns/pid")" != "$(readlink /proc/self/ns/pid)" ]; then
    enter=(nsenter --target "$inner" --mount --net --pid)
    [ "$(readlink "/proc/$inner/ns/user")" != "$(readlink /proc/self/ns/user)" ] && enter+=(--user --preserve-credentials)
    enter+=(--)
fi
exec "${enter[@]}" "${words[@]}" "$@"
