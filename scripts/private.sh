#!/usr/bin/env bash
# Runs a command in private network, mount, PID and IPC namespaces with a private /run: whatever it makes
# is gone when it ends, also when it is killed. As an ordinary user a user namespace is made first.
set -euo pipefail
inner='mount -t tmpfs tmpfs /run && exec "$@"'
user=()
if [ "$(id -u)" != 0 ]; then user=(--user --map-root-user); fi
export MESH_PRIVATE=1
exec unshare "${user[@]}" --mount --net --pid --ipc --uts --fork --kill-child --mount-proc \
    --propagation private bash -c "$inner" private "$@"
