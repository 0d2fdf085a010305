#!/bin/sh
# Answers for protoc when the etcd client is built, so that building meshd needs no protoc on the machine: what protoc
# makes of that client's .proto files is kept beside this script (etcd.binpb). Of other files a real protoc is asked.
# `protoc.sh renew` makes it anew with a real protoc after the client has been updated; `protoc.sh check` compares.
# Called by the build through PROTOC (.cargo/config.toml), in the folder of the crate that is built.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
# Over the .proto files of the client that etcd.binpb was made of.
known=3d47565c69b27543014754342a3fca482a828ad4d8cede25fd9cfea9b9c86939

sum() { find proto -name '*.proto' | LC_ALL=C sort | xargs cat | sha256sum | cut -d ' ' -f 1; }

# make FILE: with a real protoc, from the client that the lock file names.
make() {
    crate="$(cd "$here" && "${CARGO:-cargo}" metadata --format-version 1 | tr ',' '\n' |
        sed -n 's/.*"manifest_path":"\([^"]*\/etcd-client-[^"]*\)\/Cargo.toml".*/\1/p' | head -1)"
    cd "$crate"
    protoc --include_imports -o "$1" -I proto \
        proto/etcd/api/authpb/auth.proto proto/etcd/api/etcdserverpb/rpc.proto proto/etcd/api/mvccpb/kv.proto \
        proto/etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto \
        proto/etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto
}

case "${1:-}" in
renew)
    make "$here/etcd.binpb"
    sed -i "s/^known=.*/known=$(sum)/" "$here/protoc.sh"
    exit 0
    ;;
check)
    made="$(mktemp)"
    trap 'rm -f "$made"' EXIT
    make "$made"
    cmp "$made" "$here/etcd.binpb" && [ "$(sum)" = "$known" ]
    exit
    ;;
esac

out=
previous=
for word in "$@"; do
    [ "$previous" = -o ] && out="$word"
    previous="$word"
done
if [ -n "$out" ] && [ -d proto/etcd/api/etcdserverpb ] && [ "$(sum)" = "$known" ]; then
    cp "$here/etcd.binpb" "$out"
    exit 0
fi
real="$(command -v protoc)" || {
    echo "protoc is not installed, and registry/proto/etcd.binpb is not of these files: run registry/proto/protoc.sh renew where protoc is" >&2
    exit 1
}
exec "$real" "$@"
