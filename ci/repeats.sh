#!/usr/bin/env bash
# Repeats one small case on this machine and counts how often the interval of a run holds the median of all runs. CI does not run it.
#
#   ci/repeats.sh [--runs N] [--seconds S] [--starts R] [--folder DIR]
#
# 24 runs of 10 s (ten blocks of 1 s) without arguments: eight minutes. With --starts each run starts its worker R times. An interval speaks of its own run, so what changes
# from run to run (other programs, temperature, where memory came to lie) makes it hold less: on a quiet machine the counts are near 95 %. Of the percentile's bound
# it is counted how often it is at least the median of the runs' 99th percentiles. The runs are kept in DIR (default: a new folder under the system's temporary one).
# ERGOMETER_EXE names a program that is built already.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

runs=24 seconds=10 starts=1 folder=
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail "$1 wants a value"
    case $1 in
        --runs) runs=$2 ;;
        --seconds) seconds=$2 ;;
        --starts) starts=$2 ;;
        --folder) folder=$2 ;;
        *) fail "unknown option $1
hint: the options are --runs, --seconds, --starts, --folder" ;;
    esac
    shift 2
done
[ -n "$folder" ] || folder=$(mktemp -d)
mkdir -p -- "$folder"
program=${ERGOMETER_EXE:-}
if [ -z "$program" ]; then
    cargo build --release --quiet
    program=target/release/ergometer
fi
cat >"$folder/suite.toml" <<SUITE
about = "One case, to be repeated"

[[model]]
name = "trm-6x6"
path = "$PWD/suites/models/trm-6x6"

[[task]]
name = "sudoku-6x6"
kind = "sudoku"
size = 6
split = "test"
examples = 50
seed = 1
clues = [12, 16]

[[cases]]
models = ["trm-6x6"]
tasks = ["sudoku-6x6"]
backends = ["native"]
precisions = ["f32"]
depth = ["fixed-16"]
scenarios = ["single-stream"]
threads = [1]
warmup_seconds = 0.5
seconds = $seconds
SUITE

for i in $(seq "$runs"); do
    [ ! -e "$folder/$i/records.csv" ] || continue
    say "run $i of $runs"
    "$program" run "$folder/suite.toml" --out "$folder/$i" --repeats "$starts" >/dev/null
done

say "intervals that hold the median of $runs runs"
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
of() { awk -F, -v m="$1" '$14 == m && $17 != "" { print $17, ($18 == "" ? "-" : $18), ($19 == "" ? "-" : $19) }' "$folder"/*/records.csv; }
for metric in latency throughput cpu_time energy_cpu; do
    [ -n "$(of "$metric")" ] || continue
    middle=$(of "$metric" | awk '{ print $1 }' | median)
    of "$metric" | awk -v m="$metric" -v middle="$middle" '
        $3 != "-" { n++; width += ($3 - $2) / middle; if ($2 <= middle && middle <= $3) held++ }
        { d = $1 / middle - 1; spread += d * d }
        END {
            if (n) printf "%-12s %d of %d, mean width %.2f %%, runs differ by %.2f %% (standard deviation)\n", m, held, n, 100 * width / n, 100 * sqrt(spread / NR)
            else printf "%-12s no interval\n", m
        }'
done
tails=$(for i in $(seq "$runs"); do
    awk -F, '$2 == "steady" && $7 == "latency" { print $8 }' "$folder/$i"/cases/*/samples.csv | sort -g | awk '{ v[NR] = $1 } END { print v[int(NR * 0.99) + 1] }'
done | median)
of latency_p99 | awk -v middle="$tails" '$3 != "-" { n++; if ($3 >= middle) held++ } END { printf "%-12s %d of %d bounds given\n", "latency_p99", held, n }'
printf 'runs are in %s\n' "$folder"
