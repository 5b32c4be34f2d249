#!/usr/bin/env bash
# The unsafe code under tools that watch memory: tests of the kernels and of the native backend under AddressSanitizer, then tests and a golden net under Valgrind.
# No part of .ci/run: it wants a nightly toolchain and Valgrind, and takes half an hour. `ci/sanitize.sh address` or `ci/sanitize.sh valgrind` runs one half.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || set -- address valgrind
not_run=()
# one seed, so that what is found can be found again
export PROPTEST_RNG_SEED=20261122
# native's own tests; other engines are not ours to check
native=(--package ergometer --lib)

# Reads and writes out of bounds, and uses after the end of a life, on every instruction set of this machine. What AMX itself loads and stores is not
# seen (inline assembly), nor what goes astray within a thread's scratch memory: both rest on the assertions of kernels/src/vector/product.rs.
address() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        not_run+=("AddressSanitizer, for want of a nightly toolchain
hint: rustup toolchain install nightly --profile minimal")
        return
    fi
    say "AddressSanitizer, $(cargo +nightly --version)"
    # a folder and a target of its own: the flag is not for build scripts, and would have everything else built anew
    local check=(cargo +nightly test --release --target x86_64-unknown-linux-gnu --target-dir target/sanitize)
    RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address" "${check[@]}" --package ergometer-kernels --lib
    RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address" "${check[@]}" "${native[@]}" --no-default-features -- backends::native
}

# Reads of what was never written as well. Valgrind's processor has no AVX-512, so this is the path of AVX2, and of plain code.
memcheck() {
    if ! command -v valgrind >/dev/null; then
        not_run+=("Valgrind, which is not installed
hint: install the package valgrind")
        return
    fi
    local check=(valgrind --quiet --error-exitcode=9 --fair-sched=yes) net=tests/golden/hrm-d64 precision threads
    say "$(valgrind --version): the operators, and small nets of every family in every precision"
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="${check[*]}"
    cargo test --release --package ergometer-kernels --lib
    cargo test --release "${native[@]}" -- every_family_agrees batch_place_and kept_rows_go_on plans_compute
    unset CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER

    cargo build --release --quiet
    for precision in f32 bf16 int8; do
        for threads in 1 2; do
            say "$(valgrind --version): $net in $precision on AVX2, threads: $threads"
            ERGOMETER_ISA=avx2 "${check[@]}" target/release/ergometer parity --model "$net" --vectors "$net/vectors.safetensors" \
                --backend native --precision "$precision" --threads "$threads"
        done
    done
}

for part in "$@"; do
    case $part in
        address) address ;;
        valgrind) memcheck ;;
        *) fail "there is no part \`$part\`
hint: the parts are address and valgrind" ;;
    esac
done
# 75: not run, for want of something from outside
for what in "${not_run[@]}"; do
    say "NOT RUN: $what"
done
[ "${#not_run[@]}" -eq 0 ] || exit 75
