#!/usr/bin/env bash
# Trains the nets of a plan in order of worth within some seconds, and leaves what comes back in a folder: models.tar (the model folders), a
# checkpoint a net, and log.txt. A net that fails does not keep the others from their turn.
#
#     ci/train/gpu.sh PLAN SECONDS OUT --data TRAIN --eval TEST[,TEST] [--from FOLDER] [--device cuda|cpu] [--no-warm] [--set TABLE.KEY=VALUE]...
#
# PLAN has a line `TRAINING-FILE SHARE` a net: it is given that share of the seconds that are left when its turn comes. --from: a folder of
# an earlier run, whose checkpoints are gone on from. --no-warm: do not compile all nets at once beforehand. PYTHON names the Python (python3).
# At most eight files, each meant to be under 16 MiB: six checkpoints, so a plan has at most six nets.
set -euo pipefail
began=$SECONDS
# shellcheck source=ci/lib.sh
here=$PWD
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"
root=$PWD
cd -- "$here"

usage() { fail "$1
hint: ci/train/gpu.sh PLAN SECONDS OUT --data TRAIN --eval TEST [--from FOLDER] [--device cuda|cpu] [--no-warm] [--set TABLE.KEY=VALUE]..."; }
# bad input is exit code 2, as in the program
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}
[ $# -ge 3 ] || usage "PLAN, SECONDS and OUT are needed"
plan=$1 seconds=$2 out=$3
shift 3
data='' eval='' from='' warm=yes device=() sets=()
while [ $# -gt 0 ]; do
    case $1 in
        --no-warm) warm=; shift; continue ;;
        --data | --eval | --from | --device | --set) [ $# -ge 2 ] || usage "$1 needs a value" ;;
        *) usage "unknown argument \`$1\`" ;;
    esac
    case $1 in
        --data) data=$2 ;;
        --eval) eval=$2 ;;
        --from) from=$2 ;;
        --device) device=(--device "$2") ;;
        --set) sets+=(--set "$2") ;;
    esac
    shift 2
done
[ -n "$data" ] && [ -n "$eval" ] || usage "--data and --eval are needed"
[[ $seconds =~ ^[0-9]+$ ]] && [ "$seconds" -ge 10 ] || usage "SECONDS is \`$seconds\`, a whole number of at least 10 is needed"
[ -r "$plan" ] || fail "$plan: cannot be read
hint: name a plan; the shipped one is suites/train/gpu.plan"
[ -z "$from" ] || [ -d "$from" ] || fail "$from: no such folder
hint: name the folder of an earlier run, or leave --from out"
files=() shares=()
number=0
while read -r file share rest; do
    number=$((number + 1))
    case $file in '' | '#'*) continue ;; esac
    [[ ${share:-} =~ ^[0-9]+$ ]] && [ "$share" -gt 0 ] && [ -z "${rest:-}" ] || fail "$plan: line $number: \`$file ${share:-} ${rest:-}\` is not \`TRAINING-FILE SHARE\`
hint: the share is a whole number above 0"
    # a plan of this repository names its files from the root
    [ -r "$file" ] || file=$root/$file
    [ -r "$file" ] || fail "$plan: line $number: $file cannot be read
hint: name a training file"
    files+=("$file") shares+=("$share")
done <"$plan"
[ "${#files[@]}" -gt 0 ] && [ "${#files[@]}" -le 6 ] || fail "$plan: ${#files[@]} nets; 1 to 6 are possible
hint: what comes back is at most eight files"

python=${PYTHON:-python3}
mkdir -p "$out/models" || fail "$out: cannot be made
hint: name another folder"
log=$out/log.txt
note() { printf '%s\n' "$*" | tee -a -- "$log" >&2; }
note "== $(date -u +%FT%TZ), $seconds s, plan $plan"
# compilers of one net may use every core; what they make is kept for the next net and the next call on this machine
export PYTHONUNBUFFERED=1

if [ -n "$warm" ]; then
    note "== compiling all nets at once"
    timeout "$((seconds / 3 + 10))" "$python" "$root/ci/train/smoke.py" "${files[@]}" --warm --data "$data" --eval "$eval" "${device[@]}" "${sets[@]}" 2>&1 | tee -a -- "$log" >&2 ||
        note "compiling beforehand failed or took too long; each net compiles by itself"
fi

failed=0 reserve=$((seconds / 50 + 3))
for i in "${!files[@]}"; do
    name=$(basename -- "${files[i]}" .toml)
    left=$((seconds - (SECONDS - began) - reserve))
    whole=0
    for share in "${shares[@]:i}"; do whole=$((whole + share)); done
    share=$((left * shares[i] / whole))
    if [ "$share" -lt 5 ]; then
        note "== $name: $share s are left for it, too few"
        failed=$((failed + 1))
        continue
    fi
    model=$out/models/$name
    resume=()
    mkdir -p "$model"
    if [ -n "$from" ] && [ -s "$from/$name.checkpoint.safetensors" ]; then
        cp -- "$from/$name.checkpoint.safetensors" "$model/checkpoint.safetensors"
        resume=(--resume)
    elif [ -s "$model/checkpoint.safetensors" ]; then
        resume=(--resume)
    fi
    note "== $name: $share s${resume:+, going on}"
    outcome=0
    timeout --signal=TERM --kill-after=10 "$((share + 15))" "$python" "$root/ci/train/train.py" "${files[i]}" --data "$data" --eval "$eval" --seconds "$share" \
        --out "$model" --weights bf16 "${resume[@]}" "${device[@]}" "${sets[@]}" 2>&1 | tee -a -- "$log" >&2 || outcome=$?
    if [ "$outcome" -ne 0 ]; then
        note "$name: exit code $outcome"
        failed=$((failed + 1))
    fi
    [ ! -s "$model/checkpoint.safetensors" ] || cp -- "$model/checkpoint.safetensors" "$out/$name.checkpoint.safetensors"
    # after every net: what was trained so far comes back even if the next one takes the machine down
    tar -C "$out" --exclude='checkpoint*' --exclude='*.tmp' -cf "$out/models.tar.new" models && mv -- "$out/models.tar.new" "$out/models.tar"
done
note "== done in $((SECONDS - began)) s, $failed of ${#files[@]} failed or fell short"
[ "$failed" -eq 0 ]
