# Sourced after environment.sh by scripts that build programs of other people; uses $work, a folder that goes away.

# The Go tool: the one at hand, or the newest that Debian or its backports offer, unpacked beside the other tools.
go_tool() {
    local found candidate package
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go \
        $(ls -d /usr/lib/go-*/bin/go "$MESH_TOOLS"/root/usr/lib/go-*/bin/go 2>/dev/null | sort -rV); do
        [ -x "$candidate" ] && { echo "$candidate"; return; }
    done
    # Not in the folder of the lists: apt-get update empties that of what it does not know.
    mkdir -p "$MESH_TOOLS/go-lists/lists/partial" "$MESH_TOOLS/go-lists/cache/archives/partial" "$MESH_TOOLS/root"
    # The mirror is the one that this machine's own lists name. Debian's awk ends at a file that is not there.
    local mirror
    mirror="$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
        awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }')"
    [ -n "$mirror" ] || return 1
    echo "deb $mirror bookworm-backports main" >"$MESH_TOOLS/go-lists/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$MESH_TOOLS/go-lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$MESH_TOOLS/go-lists/lists" -o "Dir::Cache=$MESH_TOOLS/go-lists/cache")
    "${apt[@]}" update >&2
    package="$(apt-cache "${apt[@]:2}" search --names-only '^golang-1\.[0-9]+-go$' | cut -d' ' -f1 | sort -V | tail -1)"
    [ -n "$package" ] || return 1
    (cd "$work" && "${apt[@]}" download "$package" "${package%-go}-src" >&2 &&
        for deb in ./*.deb; do dpkg -x "$deb" "$MESH_TOOLS/root"; done)
    found="$(ls -d "$MESH_TOOLS"/root/usr/lib/go-*/bin/go | sort -rV | head -1)"
    [ -x "$found" ] && echo "$found"
}
