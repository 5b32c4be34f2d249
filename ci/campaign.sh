#!/usr/bin/env bash
# The campaign: mutated input for every parser, and faults of the running program. CI runs a small one within `cargo test`; this is the long one.
#
#   ci/campaign.sh [--executions N] [--faults N] [--minutes M] [--seed S] [--folder DIR] [PARSER...]
#
# Ten million executions and 200 faults without arguments, three hours at most. Executions are shared out evenly over the parsers; they are libFuzzer's where a
# nightly toolchain and cargo-fuzz are there, else the seeded mutations of the tests. Counts are kept in DIR/counts, corpora in DIR/corpus: called again with the
# same folder it goes on. It prints the counts at its end; exit code 1 if anything broke.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

executions=10000000 faults=200 minutes=180 seed=1 folder=target/campaign parsers=()
while [ $# -gt 0 ]; do
    case $1 in
        --executions) executions=$2 && shift ;;
        --faults) faults=$2 && shift ;;
        --minutes) minutes=$2 && shift ;;
        --seed) seed=$2 && shift ;;
        --folder) folder=$2 && shift ;;
        -*) fail "unknown option $1
hint: the options are --executions, --faults, --minutes, --seed, --folder" ;;
        *) parsers+=("$1") ;;
    esac
    shift
done
deadline=$((SECONDS + 60 * minutes))
mkdir -p -- "$folder"
folder=$(cd -- "$folder" && pwd)
scratch=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf -- "$scratch"' EXIT
touch "$folder/counts"
broke=0

say "build, and a recorded run to take files from"
ERGOMETER_FUZZ_SEEDS="$folder" cargo test --release --package ergometer --test it -- --exact mutation::seeds_are_written_for_the_campaign
if [ "${#parsers[@]}" -eq 0 ]; then
    mapfile -t parsers < <(cd -- "$folder/corpus" && ls)
fi
share=$((executions / ${#parsers[@]}))
done_of() { awk -v p="$1" '$1 == p { n += $2 } END { print n + 0 }' "$folder/counts"; }

if [ "$executions" -gt 0 ] && cargo +nightly fuzz --version >/dev/null 2>&1; then
    say "cargo fuzz build"
    # leaks of parsers are of no interest, undefined behaviour is: unsafe code lies in the kernels, which ci/sanitize.sh holds to AddressSanitizer
    export CARGO_TARGET_DIR="$folder/target"
    (cd tests/fuzz && cargo +nightly fuzz build --fuzz-dir . --release --sanitizer none parser)
    unset CARGO_TARGET_DIR
    program=$(find "$folder/target" -type f -path '*/release/parser' -print -quit)
    for parser in "${parsers[@]}"; do
        left=$((share - $(done_of "$parser")))
        # what remains of the time, shared among those that remain
        limit=$(((deadline - SECONDS) / 2))
        if [ "$parser" = training ] || [ "$left" -le 0 ] || [ "$limit" -le 0 ]; then continue; fi
        say "$parser: $left executions, $limit s at most"
        mkdir -p -- "$folder/found/$parser"
        log="$folder/$parser.log"
        code=0
        ERGOMETER_FUZZ="$parser" ERGOMETER_FUZZ_RUN="$folder/run" ERGOMETER_FUZZ_SCRATCH="$scratch" "$program" "$folder/corpus/$parser" \
            -runs="$left" -max_total_time="$limit" -seed="$seed" -timeout=25 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
            -artifact_prefix="$folder/found/$parser/" >"$log" 2>&1 || code=$?
        n=$(awk '/number_of_executed_units/ { print $2 }' "$log" | tail -1)
        echo "$parser ${n:-0}" >>"$folder/counts"
        if [ "$code" -ne 0 ]; then
            broke=1
            tail -30 -- "$log" >&2
        fi
    done
elif [ "$executions" -gt 0 ]; then
    say "no nightly toolchain with cargo-fuzz: the seeded mutations of the tests"
    while [ "$SECONDS" -lt "$deadline" ]; do
        round=$(wc -l <"$folder/counts")
        [ "$(awk '{ n += $2 } END { print n + 0 }' "$folder/counts")" -lt "$executions" ] || break
        code=0
        ERGOMETER_FUZZ_EXECUTIONS=3000 ERGOMETER_FUZZ_SEED=$((seed * 1000003 + round)) \
            cargo test --release --package ergometer --test it -- --exact mutation::every_parser_bears_mutated_input --nocapture \
            >"$folder/mutation.log" 2>&1 || code=$?
        awk '/ inputs$/ { print "seeded", $1 }' "$folder/mutation.log" >>"$folder/counts"
        if [ "$code" -ne 0 ]; then
            broke=1
            tail -40 -- "$folder/mutation.log" >&2
            break
        fi
    done
fi

if [ "$faults" -gt 0 ]; then
    say "$faults faults of the running program"
    left=$((deadline - SECONDS > 60 ? deadline - SECONDS : 60))
    python3 -B ci/campaign/faults.py --program target/release/ergometer --faults "$faults" --seconds "$left" --seed "$seed" --scratch "$scratch" \
        --folder "$folder" || broke=1
fi

say "counts"
awk '{ n[$1] += $2 } END { for (p in n) print p, n[p] }' "$folder/counts" | sort
awk '{ n += $2 } END { print "executions in all:", n + 0 }' "$folder/counts"
cat -- "$folder/faults.txt" 2>/dev/null || true
exit "$broke"
