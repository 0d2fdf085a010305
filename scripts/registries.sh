#!/usr/bin/env bash
# Fetches or builds the real registries that the tests of discovery run against: once, each in a folder of
# ~/.cache/meshd-peers/registries. Does nothing when they are there. Nothing is installed on the machine but, by
# root, a JDK and Maven where they are missing.
# usage: scripts/registries.sh [NAME…]     all of them without a name
# One file of scripts/registries per server defines install_NAME and, where the server needs something of the machine
# itself, needs_NAME; registry/src/contract/server.rs names the same folders.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
registries="$MESH_TOOLS/registries"
mkdir -p "$registries"
work="$(mktemp -d "$registries/.making-XXXXXX")"
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

# missing NAME: false when it is there already.
missing() { ! [ -e "$registries/$1/.done" ]; }

# finish NAME: what was made in $work/NAME is whole from now on.
finish() {
    touch "$work/$1/.done"
    chmod -R a+rX "$work/$1"
    rm -rf "${registries:?}/$1"
    mv "$work/$1" "$registries/$1"
}

# left_out NAME WHY: says so; the tests that need it say that they are skipped.
left_out() {
    echo "set-up: $1 cannot be had ($2): its tests are left out" >&2
    return 0
}

# The Debian mirror that this machine's own lists name. Debian's awk ends at a file that is not there.
debian_mirror() {
    { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
        awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }'
}

# debian_release RELEASE: sets APT_CONFIG to a private root of apt with that release alone, which can
# neither upgrade nor pin anything on the machine; its lists are fetched at most once per run.
debian_release() {
    local release="$1" root="$work/apt-$1" mirror
    export APT_CONFIG="$root/apt.conf"
    [ -e "$APT_CONFIG" ] && return 0
    mirror="$(debian_mirror)"
    [ -n "$mirror" ] || return 1
    mkdir -p "$root"/{lists/partial,cache/archives/partial}
    : >"$root/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$root/sources.list"
    {
        printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "/dev/null";\n' "$root/sources.list"
        printf 'Dir::Etc::preferences "/dev/null";\nDir::Etc::preferencesparts "/dev/null";\n'
        printf 'Dir::State::lists "%s";\nDir::State::status "%s";\nDir::Cache "%s";\n' \
            "$root/lists" "$root/status" "$root/cache"
        [ "$(id -u)" != 0 ] || printf 'APT::Sandbox::User "root";\n'
    } >"$APT_CONFIG"
    apt-get -qq update >&2 || { rm -f "$APT_CONFIG"; return 1; }
}

# from_debian NAME RELEASE PACKAGE…: the packages, unpacked under NAME; installed nowhere, started never.
from_debian() {
    local name="$1" release="$2"
    shift 2
    command -v apt-get >/dev/null || return 1
    mkdir -p "$work/$name" "$work/$name.debs"
    (
        debian_release "$release" || exit 1
        cd "$work/$name.debs"
        apt-get -qq download "$@" >/dev/null || exit 1
        for deb in ./*.deb; do dpkg -x "$deb" "$work/$name" || exit 1; done
    )
}

# java_here: a JDK, for servers and for clients of them that tests write in Java.
java_here() {
    command -v java >/dev/null && command -v javac >/dev/null && return 0
    apt_install default-jdk-headless
}

# apt_install PACKAGE…: by root, on the machine itself.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "set-up: installing $*"
    apt-get -qq update >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

for file in scripts/registries/*.sh; do . "$file"; done

if [ "$#" = 0 ]; then
    for file in scripts/registries/*.sh; do set -- "$@" "$(basename "$file" .sh)"; done
fi
for name in "$@"; do
    declare -F "install_$name" >/dev/null || { echo "no such registry: $name" >&2; exit 2; }
    if declare -F "needs_$name" >/dev/null && ! "needs_$name"; then
        left_out "$name" "the machine lacks what it needs"
        continue
    fi
    missing "$name" || continue
    echo "set-up: fetching $name for the tests of discovery"
    "install_$name" || left_out "$name" "it failed"
done
