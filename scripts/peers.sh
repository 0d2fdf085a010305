#!/usr/bin/env bash
# Builds the protocol suites and clients of other people that the tests run against the mesh: once, each in a
# folder of ~/.cache/meshd-peers/peers that is named after its version. Does nothing when they are there.
# usage: scripts/peers.sh
# tests/src/peers.rs names the same folders.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
. scripts/go-tool.sh
peers="$MESH_TOOLS/peers"
mkdir -p "$peers"
work="$(mktemp -d "$peers/.making-XXXXXX")"
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

# made FOLDER: false when it is there already.
missing() { ! [ -e "$peers/$1/.done" ]; }

finish() {
    touch "$work/$1/.done"
    chmod -R a+rX "$work/$1"
    rm -rf "${peers:?}/$1"
    mv "$work/$1" "$peers/$1"
}

# from_go FOLDER MODULE@VERSION…: the programs, named after the last part of their paths.
from_go() {
    local folder="$1" go
    shift
    missing "$folder" || return 0
    go="$(go_tool)" || { echo "set-up: no Go tool: $folder is left out" >&2; return 0; }
    echo "set-up: building $folder"
    mkdir -p "$work/$folder"
    for module in "$@"; do
        # A Go tool that is too old for the module fetches the one that it asks for.
        if ! GOBIN="$work/$folder" CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=auto "$go" install "$module" 2>"$work/log"; then
            tail -5 "$work/log" >&2
            echo "set-up: $module cannot be built: what needs it is left out" >&2
            return 0
        fi
    done
    finish "$folder"
}

# h2spec names no versions of what it needs, and the newest ask for a newer Go tool than Debian has: older ones then.
h2spec_with_older() {
    local folder=h2spec-2.2.1 go
    missing "$folder" && go="$(go_tool)" || return 0
    echo "set-up: building $folder with older libraries"
    mkdir -p "$work/$folder" "$work/module"
    if ! (
        cd "$work/module" && export GOBIN="$work/$folder" CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local
        "$go" mod init module &&
            "$go" get github.com/summerwind/h2spec@v2.2.1+incompatible golang.org/x/net@v0.33.0 \
                github.com/fatih/color@v1.15.0 github.com/spf13/cobra@v1.8.1 &&
            "$go" install github.com/summerwind/h2spec/cmd/h2spec
    ) 2>"$work/log"; then
        tail -5 "$work/log" >&2
        return 0
    fi
    finish "$folder"
}

# from_pip FOLDER REQUIREMENT…: the packages, to be found by PYTHONPATH.
from_pip() {
    local folder="$1"
    shift
    missing "$folder" || return 0
    echo "set-up: fetching $folder"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >/dev/null || true
        fi
    fi
    if ! python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore \
        --target "$work/$folder" "$@" 2>"$work/log"; then
        tail -5 "$work/log" >&2
        echo "set-up: $folder cannot be fetched: what needs it is left out" >&2
        return 0
    fi
    finish "$folder"
}

from_go h2spec-2.2.1 github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
h2spec_with_older
from_go grpc-interop-1.85.0 \
    google.golang.org/grpc/interop/client@v1.85.0 google.golang.org/grpc/interop/server@v1.85.0
from_pip python-1 websockets==17.4 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0 grpcio==1.85.1
