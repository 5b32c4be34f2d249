#!/usr/bin/env bash
# Every shipped suite in check mode: each case runs parity and one measured step, and any end but the expected ones fails.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# Suites that must be there; more are run if there are more.
required=(quick matrix kernels peers gpu external-worker)

find_onnxruntime
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# Reference vectors are made afresh: those of an earlier build would hide a change of the interpreter.
export ERGOMETER_CACHE="$scratch/cache"
# The suite `peers` without its peers, whether they are installed here or not: searching their settings takes minutes.
export ERGOMETER_PEERS_PYTHON="$scratch/none"

say "build"
cargo build --release

failed=()
checked=()
for file in suites/*.toml examples/*/suite.toml; do
    name=$(basename -- "$file" .toml)
    [ "$name" = Cargo ] && continue
    [ "$name" = suite ] && name=$(basename -- "$(dirname -- "$file")")
    say "run $name --check"
    # what needs models of the world is checked where they were fetched
    if grep -q 'fetched:' "$file"; then
        printf 'suite %s left out: it needs `ergometer fetch`\n' "$name"
        continue
    fi
    run="$scratch/$name"
    only=()
    # each case of it answers hundreds of boards at up to 32 steps: ten minutes. One depth of each net shows that it runs.
    [ "$name" = thesis ] && only=(--filter '*/fixed-1')
    if cargo run --release --quiet -- run "$file" --check "${only[@]}" --out "$run" &&
        [ -s "$run/records.json" ] && [ -s "$run/report/index.html" ]; then
        checked+=("$name")
    else
        failed+=("$name")
        printf 'suite %s failed or left no report\n' "$name" >&2
    fi
done

for name in "${required[@]}"; do
    case " ${checked[*]:-} ${failed[*]:-} " in
        *" $name "*) ;;
        *) fail "the required suite \`$name\` was not run: its file is missing" ;;
    esac
done
[ "${#failed[@]}" -eq 0 ] || fail "suites that failed: ${failed[*]}"
say "${#checked[@]} suites checked: ${checked[*]}"
