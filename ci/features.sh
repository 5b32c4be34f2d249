#!/usr/bin/env bash
# Every backend can be left out: the program and its tests compile without any of them, and with each one alone.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

for features in "" candle onnxruntime tract nvml; do
    say "cargo check --no-default-features --features \"$features\""
    cargo check --release --all-targets --no-default-features --features "$features"
done
