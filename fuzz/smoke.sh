#!/bin/sh
# Runs each fuzz target for a while, on the stable toolchain, from its committed seeds.
# The last line says how many targets passed and failed. What is found goes to fuzz/artifacts/, what is new to
# fuzz/target/corpus/.
#
#   sh fuzz/smoke.sh                 every target, 60 seconds each
#   sh fuzz/smoke.sh 3600 dsn tap    these, an hour each
set -eu

cd "$(dirname "$0")/.."

seconds=${1:-60}
if [ $# -gt 0 ]; then shift; fi
if [ $# -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$file" .rs)"
    done
fi

cargo fuzz --version > /dev/null 2>&1 || cargo install cargo-fuzz --locked

# cargo-fuzz asks the compiler for what only nightly has by that name.
export RUSTC_BOOTSTRAP=1

passed=0
failed=0
for target in "$@"; do
    printf '== %s\n' "$target"
    seeds=fuzz/corpus/$target
    new=fuzz/target/corpus/$target
    mkdir -p "$new"
    # No sanitizer: there is no `unsafe` to watch over. A target without seeds fails: they are part of it.
    if [ -n "$(ls "$seeds" 2> /dev/null)" ] && cargo fuzz run --sanitizer none "$target" "$new" "$seeds" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; then
        passed=$((passed + 1))
    else
        printf 'FAILED: %s\n' "$target"
        failed=$((failed + 1))
    fi
done
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
