#!/usr/bin/env bash
# Trains the nets of a plan in order of worth within some seconds, and leaves what comes back in a folder, at most eight files: models.tar (the
# model folders), a checkpoint a net (of the first six), and log.txt. A net that fails does not keep the others from their turn.
#
#     ci/train/gpu.sh PLAN SECONDS OUT --data TRAIN --eval TEST[,TEST] [--from FOLDER] [--device cuda|cpu] [--no-warm] [--set TABLE.KEY=VALUE]...
#
# PLAN has a line `TRAINING-FILE SHARE [name=NAME] [TABLE.KEY=VALUE]...` a net: it is given that share of the seconds that are left when its
# turn comes. --from: a folder of an earlier run, whose checkpoints are gone on from. --no-warm: do not compile all nets at once beforehand.
# PYTHON names the Python (python3). Exit codes: 0, 1 (a net failed or fell short), 2 (bad input).
set -euo pipefail
began=$SECONDS
plan_py=$(dirname -- "${BASH_SOURCE[0]}")/plan.py
seconds=${2:-}
export PYTHONUNBUFFERED=1
if ! [[ $seconds =~ ^[0-9]+$ ]]; then
    printf 'error: SECONDS is `%s`, a whole number is needed\nhint: ci/train/gpu.sh PLAN SECONDS OUT --data TRAIN --eval TEST\n' "$seconds" >&2
    exit 2
fi
plan=$1 out=${3:-}
[ -z "$out" ] || rm -f -- "$out/models/begun.tmp"
shift 2
# a process that was ended by its device (and not by itself) is followed by one that goes on with the next net
for _ in 1 2 3 4 5 6; do
    outcome=0
    "${PYTHON:-python3}" "$plan_py" "$plan" "$((seconds - (SECONDS - began)))" "$@" || outcome=$?
    [ "$outcome" -gt 2 ] || exit "$outcome"
    # 4: a CUDA graph that could not be made took the process with it
    [ "$outcome" -ne 4 ] || set -- "$@" --set torch.graph=false
    [ "$((seconds - (SECONDS - began)))" -ge 20 ] || break
done
exit 1
