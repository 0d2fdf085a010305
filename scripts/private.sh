#!/usr/bin/env bash
# Runs a command in private mount, network and process namespaces, with its own /run and temporary folder.
# usage: scripts/private.sh COMMAND [ARGUMENT…]
# Whatever ends it (its end, Ctrl-C, kill -9) ends everything in it and leaves nothing on the machine.
# As an ordinary user (or with MESH_USERNS=1) it adds a user namespace, in which one uid is mapped.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
if [ "${MESH_PRIVATE:-}" = 1 ]; then exec "$@"; fi
user=()
if [ "$(id -u)" != 0 ] || [ "${MESH_USERNS:-}" = 1 ]; then user=(--user --map-root-user); fi
export MESH_PRIVATE=1
exec unshare "${user[@]}" --mount --propagation private --net --pid --ipc --uts --fork --kill-child -- bash -c '
    set -e
    mount -t proc proc /proc
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -p /run/netns /run/lock /run/temporary
    # Many programs look for their files in /var/run; it is a link to /run on Debian.
    export TMPDIR=/run/temporary
    ip link set lo up
    # This shell is process 1 in here: its end is the end of all.
    trap "exit 130" INT
    trap "exit 143" TERM HUP
    "$@" <&0 &
    wait $!
' private "$@"
