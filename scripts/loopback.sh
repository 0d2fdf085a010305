#!/usr/bin/env bash
# Runs a command where no namespace is allowed: in a process group and a temporary folder of its own.
# usage: scripts/loopback.sh COMMAND [ARGUMENT…]
# A watcher outside the group ends what is left and removes the folder, also after kill -9.
set -euo pipefail
TMPDIR="$(mktemp -d "${TMPDIR:-/tmp}/meshd-demo.XXXXXX")"
chmod 755 "$TMPDIR"
export TMPDIR
own=$$
setsid --wait "$@" &
child=$!
setsid bash -c '
    own=$1 child=$2 folder=$3
    while [ -e "/proc/$own" ] && [ -e "/proc/$child" ]; do sleep 0.2; done
    for signal in TERM KILL; do
        for process in /proc/[0-9]*; do
            [ "${process#/proc/}" = "$$" ] && continue
            if tr "\0" "\n" <"$process/environ" 2>/dev/null | grep -qxF "TMPDIR=$folder"; then
                kill "-$signal" "${process#/proc/}" 2>/dev/null || true
            fi
        done
        sleep 0.5
    done
    rm -rf "$folder"
' watcher "$own" "$child" "$TMPDIR" </dev/null >/dev/null 2>&1 &
trap 'kill -TERM "$child" 2>/dev/null || true; exit 130' INT TERM HUP
wait "$child"
