#!/bin/sh
# Looks for what nobody has seen yet: fresh seeds for the properties over scenarios, half an hour of exploration, and the
# planted bugs. What fails prints the line that replays it.
#
#   sh tests/nightly.sh [MINUTES]
set -eu

cd "$(dirname "$0")/.."

minutes=${1:-30}
seed=$(date +%s)
failed=0

echo "== properties, seed $seed"
GDBPOOL_SIM_SEED=$seed GDBPOOL_SIM_CASES=2000 cargo test --release --all-features \
    --test sim_routing --test sim_pinning --test sim_listening --test sim_oracles || failed=1

echo "== exploration, seed $seed"
cargo run --release -p gdbpool-sim --bin gdbpool-sim -- explore --minutes "$minutes" --seed "$seed" || failed=1

echo "== planted bugs"
cargo run --release -p gdbpool-sim --bin mutants || failed=1

exit "$failed"
