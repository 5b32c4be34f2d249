#!/usr/bin/env bash
# The kernels for AMX on a CPU without it: an emulator of its instructions, preloaded, checked first by itself; then the tests of the kernels and of native.
# On a CPU with AMX the plain tests run those kernels, and nothing is to be done here.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

cpu_has() { grep -qwm1 "$1" /proc/cpuinfo; }
if cpu_has amx_tile; then
    say "this CPU has AMX: no emulation is needed, \`cargo test --release\` tests its kernels"
    exit 0
fi
for feature in avx512f avx512bw avx512vl avx512dq avx512_bf16 avx512_vnni; do
    # 75: not run, for want of something from outside
    cpu_has "$feature" || { say "NOT RUN: this CPU lacks $feature, which the kernels for AMX stand on"; exit 75; }
done

built=$PWD/target/amx
case $built in
    *[[:space:]:]*) fail "LD_PRELOAD takes no path with spaces or colons, such as $built
hint: check the repository out elsewhere" ;;
esac
mkdir -p -- "$built"
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT
# one seed, so that what is found can be found again
export PROPTEST_RNG_SEED=20261122

# Runs a command, and fails if it did, if it left an instruction set untested, or if the emulator at its end has not counted products of both kinds.
emulated() {
    "$@" 2>&1 | tee -- "$log"
    if grep -q "NOT TESTED" "$log"; then
        fail "an instruction set was not tested: $*"
    fi
    grep -Eq "^AMX emulator: [1-9][0-9]* tdpbf16ps, [1-9][0-9]* tdpbusd, " "$log" ||
        fail "no products of AMX were met: $*
hint: the feature emulated-amx, or the emulator, did not reach the tests"
}

say "the emulator against plain C"
warnings=(-O2 -Wall -Wextra -Werror)
cc "${warnings[@]}" -fPIC -shared -Wl,-z,now -o "$built/emulator.so" ci/amx/emulator.c
cc "${warnings[@]}" -ffp-contract=off -pthread -o "$built/selftest" ci/amx/selftest.c -lm -ldl
emulated env LD_PRELOAD="$built/emulator.so" "$built/selftest"

# the tests alone are preloaded with it, not what builds them
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env LD_PRELOAD=$built/emulator.so"
say "the kernels"
emulated cargo test --release --package ergometer-kernels --features emulated-amx --lib
say "the native backend"
emulated cargo test --release --package ergometer --no-default-features --features emulated-amx --lib -- backends::native
