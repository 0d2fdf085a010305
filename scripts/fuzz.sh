#!/usr/bin/env bash
# Runs every fuzz target under libFuzzer for FUZZ_SECONDS (60) each, FUZZ_TARGETS="…" only those.
# The toolchain of the project is enough: coverage is a pass of the stable compiler, the fuzzer's runtime is built by c++.
# What is found lies in target/fuzz/findings; `cargo run -p mesh-fuzz -- TARGET FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
seconds="${FUZZ_SECONDS:-60}"
bash scripts/setup.sh fuzz
host="$(rustc -vV | sed -n 's/^host: //p')"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on"
# With a target given, what runs on the building machine is built without coverage.
cargo build --release -p mesh-fuzz --target "$host"
program="$CARGO_TARGET_DIR/$host/release/mesh-fuzz"
failed=0
for target in ${FUZZ_TARGETS:-$(sed -n 's/^    ("\([a-z0-9_]*\)", .*/\1/p' fuzz/src/lib.rs)}; do
    echo "== $target, $seconds s"
    mkdir -p "$CARGO_TARGET_DIR/found/$target" "$CARGO_TARGET_DIR/findings/$target"
    # New inputs are kept apart: the corpus of the repository is small and chosen.
    FUZZ_TARGET="$target" "$program" "$CARGO_TARGET_DIR/found/$target" "fuzz/corpus/${target%%_*}" \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$CARGO_TARGET_DIR/findings/$target/" || { failed=1; echo "found: $target"; }
done
[ "$failed" = 0 ] && echo "no finding"
exit "$failed"
