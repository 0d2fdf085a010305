#!/usr/bin/env bash
# The demonstration: three hosts, a mesh, four exercises by route and by dtab.
# usage: scripts/demo.sh [run|up|down]      MODE=root|user|loopback (found by itself when not given)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
action="${1:-run}"
state=target/demo
target="${CARGO_TARGET_DIR:-target}"

say() { printf '%s\n' "$*"; }

# Ends the kept demonstration, if there is one: its first process takes all others with it.
down() {
    if [ -s "$state/pid" ]; then
        pid="$(cat "$state/pid")"
        # Only if it is still ours: a process id may have been given away since.
        if [ -r "/proc/$pid/environ" ] && tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "MESH_DEMO=$PWD"; then
            kill -KILL "$pid" 2>/dev/null || true
            for _ in $(seq 100); do [ -e "/proc/$pid" ] || break; sleep 0.05; done
            say "the demonstration is down"
        fi
        rm -f "$state/pid" "$state/inner" target/demo.env
    fi
}

# True when namespaces and the kernel's rules that interception uses work in the given way.
works() {
    "$@" bash scripts/private.sh sh -c '
        ip link add probe type bridge && ip link add p1 type veth peer name p2 &&
        printf "%s\n" "table inet probe {" \
            " chain out { type nat hook output priority -100;" \
            "  ip daddr 240.240.0.1 tcp dport 80 redirect to :15001" " }" \
            " chain in { type filter hook prerouting priority -150;" \
            "  tcp dport 80 tproxy ip to :15006 meta mark set 1" " }" "}" | nft -f -' >/dev/null 2>&1
}

mode() {
    if [ -n "${MODE:-}" ]; then
        case "$MODE" in
            root | user | loopback) ;;
            *) echo "MODE is root, user or loopback, not $MODE" >&2; exit 2 ;;
        esac
        return
    fi
    if [ "$(id -u)" = 0 ] && works env; then
        MODE=root
    elif works env MESH_USERNS=1; then
        MODE=user
    else
        MODE=loopback
    fi
    say "mode: $MODE (chosen; MODE=root|user|loopback overrides)"
}

# The command line that runs the demonstration in the mode.
stage() {
    case "$MODE" in
        root) command=(env "MESH_DEMO=$PWD" bash scripts/private.sh "$target/release/mesh-demo" --mode root) ;;
        user) command=(env "MESH_DEMO=$PWD" MESH_USERNS=1 bash scripts/private.sh "$target/release/mesh-demo" --mode user) ;;
        loopback) command=(env "MESH_DEMO=$PWD" bash scripts/loopback.sh "$target/release/mesh-demo" --mode loopback) ;;
    esac
}

[ "$action" = down ] && { down; exit 0; }
[ "$action" = run ] || [ "$action" = up ] || { echo "usage: scripts/demo.sh [run|up|down]" >&2; exit 2; }

say "1/3 set-up: what this machine lacks"
bash scripts/setup.sh demo
. scripts/environment.sh
mode
say "2/3 build: release, a few minutes the first time"
cargo build --release -p meshd -p meshctl -p mesh-tests --bins
say "3/3 the demonstration"
stage
if [ "$action" = run ]; then
    exec "${command[@]}" ${DEMO_ARGUMENTS:-}
fi

down
mkdir -p "$state"
rm -f target/demo.env
setsid "${command[@]}" --keep >"$state/log" 2>&1 </dev/null &
echo $! >"$state/pid"
for _ in $(seq 1200); do
    [ -s target/demo.env ] && grep -q 'demo-down' "$state/log" && break
    [ -e "/proc/$(cat "$state/pid")" ] || { cat "$state/log"; rm -f "$state/pid"; exit 1; }
    sleep 0.1
done
cat "$state/log"
[ -s target/demo.env ] || { echo "the demonstration did not come up within 2 minutes" >&2; down; exit 1; }
