#!/usr/bin/env bash
# What ergometer, NVML and PyTorch do on a machine with an NVIDIA board, which has no Rust: the built program is brought along.
#
#     ci/gpu/check.sh OUT [short|long] [NET...]
#
# OUT gets one file, gpu-check.tar.xz: each part's output, nvml.json, nvml.csv, and `run`, a run folder with its HTML page. `short` takes about a
# minute and 20 seconds a net, `long` (the default) two minutes and 50 seconds a net; NET are model folders for 6x6 or 9x9 Sudoku (all of
# suites/models/*-9x9, trm-6x6 and dense-6x6 where none is named). SECONDS_EACH is the time of a batched case (10, 20), RUN_LIMIT that of the
# whole run (150, 330).
#
# The program is what ERGOMETER names, else target/gpu/ergometer, else target/gpu/ergometer.xz unpacked, else target/release/ergometer; PYTHON
# is a Python that has PyTorch with CUDA and nvidia-ml-py (python3). Every part runs whatever becomes of the others, within a time limit of its
# own; exit code 1 if one failed. No setting of the board is changed.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit 1

[ $# -ge 1 ] || {
    echo "error: OUT is needed: ci/gpu/check.sh OUT [short|long] [NET...]" >&2
    exit 2
}
mkdir -p -- "$1" || exit 2
out=$(cd -- "$1" && pwd)
mode=${2:-long}
shift "$(($# < 2 ? $# : 2))"
case $mode in
    short) seconds=${SECONDS_EACH:-10} nvml_seconds=4 limit=${RUN_LIMIT:-150} ;;
    long) seconds=${SECONDS_EACH:-20} nvml_seconds=10 limit=${RUN_LIMIT:-330} ;;
    *)
        echo "error: \`$mode\` is neither short nor long" >&2
        exit 2
        ;;
esac
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
logs=$scratch/logs
mkdir -p -- "$logs"

program=${ERGOMETER:-}
if [ -z "$program" ]; then
    program=target/gpu/ergometer
    if [ ! -x "$program" ] && [ -s target/gpu/ergometer.xz ]; then
        # a Python is here anyway, xz may not be
        "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' target/gpu/ergometer.xz "$program" &&
            chmod +x "$program"
    fi
    [ -x "$program" ] || program=target/release/ergometer
fi

export ERGOMETER_HOME=$PWD ERGOMETER_CACHE=$scratch/cache ERGOMETER_PEERS_PYTHON=$python PYTHONUNBUFFERED=1
# a search of settings starts PyTorch once more for each case; without it the worker takes a graph of plain kernels
export ERGOMETER_PEERS_SEARCH=${ERGOMETER_PEERS_SEARCH:-0}
[ "$mode" = long ] || export ERGOMETER_PEERS_MODELS="suites/models/trm-6x6"

summary=()
failed=0
# part NAME SECONDS COMMAND...: its output goes to OUT/NAME.log too
part() {
    local name=$1 most=$2 code=0 began=$SECONDS
    shift 2
    printf '\n== %s: %s\n' "$name" "$*"
    # ergometer ends a run that is interrupted in good order
    timeout --signal=INT --kill-after=20 "$most" "$@" >"$logs/$name.log" 2>&1 || code=$?
    tail -n 40 -- "$logs/$name.log"
    [ "$code" -eq 0 ] || failed=1
    summary+=("$(printf '%-12s exit %3d %5d s' "$name" "$code" "$((SECONDS - began))")")
    printf '%s\n' "${summary[@]}" >"$logs/summary.txt"
    # whoever ends this script has what there is so far
    keep || failed=1
    return "$code"
}
# Everything as one file of less than 16 MiB: without raw samples if they do not fit.
keep() {
    "$python" - "$out/gpu-check.tar.xz" "$logs" <<'EOF'
import os, sys, tarfile
out, logs = sys.argv[1:]
for drop in ("", "samples.csv"):
    keep = lambda entry: None if drop and entry.name.endswith(drop) else entry
    with tarfile.open(out + ".part", "w:xz", preset=2) as tar:
        tar.add(logs, "gpu-check", filter=keep)
    if os.path.getsize(out + ".part") < 15 << 20:
        break
    print("gpu-check.tar.xz: more than 15 MiB with raw samples: they stay behind", file=sys.stderr)
os.replace(out + ".part", out)
EOF
}

machine() {
    uname -a
    lscpu
    ldd --version 2>&1 | head -n 1
    "$python" -c 'import sys, torch; print(sys.version, "torch", torch.__version__, torch.version.cuda)'
    ls -l /usr/local/nvidia /usr/local/nvidia/lib64 2>&1 | head -n 40
    echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
    find /sys/class/powercap -maxdepth 1 2>&1
    nvidia-smi -q
}
export -f machine
export python

export PATH=$PATH:/usr/local/nvidia/bin
part machine 60 bash -c machine
part program 20 "$program" --version
part meters 20 "$program" list meters
part doctor 60 "$program" doctor
part nvml $((20 * nvml_seconds)) "$python" -B ci/gpu/nvml.py "$logs" --seconds "$nvml_seconds"
code=0
part peers 120 "$python" -B ci/peers/test.py || code=$?
# a run without graphs says more than none
[ "$code" -ne 3 ] || export ERGOMETER_GPU_GRAPH=no

nets=("$@")
if [ ${#nets[@]} -eq 0 ]; then
    nets=(suites/models/trm-6x6 suites/models/dense-6x6)
    for net in suites/models/*-9x9; do
        [ -s "$net/model.safetensors" ] && nets+=("$net")
    done
fi
suite() {
    "$python" -B ci/gpu/suite.py "$mode" "$seconds" "${nets[@]}" >"$logs/nets.toml"
}
if suite; then
    part run "$limit" "$program" run "$logs/nets.toml" --out "$logs/run"
    # one that ran out of time has its finished cases, and no page of them
    [ -e "$logs/run/report/index.html" ] || part report 60 "$program" report "$logs/run"
else
    failed=1
fi

printf '\n== summary\n'
cat -- "$logs/summary.txt"
exit "$failed"
