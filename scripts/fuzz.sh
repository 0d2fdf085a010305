#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60) each. Needs a nightly toolchain and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
. ../scripts/environment.sh
seconds="${FUZZ_SECONDS:-60}"
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "a nightly toolchain is needed: rustup toolchain install nightly" >&2
    exit 1
fi
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
for target in $(sed -n 's/^name = "\(fuzz_[a-z0-9_]*\)"$/\1/p' Cargo.toml); do
    echo "== $target, $seconds s"
    mkdir -p "corpus/$target"
    cargo +nightly fuzz run "$target" "corpus/$target" -- -max_total_time="$seconds" -max_len=65536
done
