#!/usr/bin/env bash
# Every test of every crate, by the README's own test command.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

command=(cargo test --release)
grep -qxF -- "${command[*]}" README.md || fail "README.md no longer has the line \`${command[*]}\`
hint: users and CI run the same command; change it in both places"

# a test that skips for want of what CI has (a C compiler, the documents) fails
export ERGOMETER_REQUIRE=1
# one commit, one verdict: CI draws the same random examples each time, a plain `cargo test` draws new ones
export PROPTEST_RNG_SEED=20261122
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

find_onnxruntime
say "${command[*]}"
outcome=0
"${command[@]}" 2>&1 | tee -- "$log" || outcome=$?

# what depends on the machine may skip, but not in silence; .ci/run says it again at its very end
skipped=$(grep -o 'SKIPPED: .*' "$log" | sort -u || true)
if [ -n "$skipped" ]; then
    say "not tested on this machine"
    printf '%s\n' "$skipped" | tee -a -- "${ERGOMETER_CI_SKIPPED:-/dev/null}"
fi
exit "$outcome"
