#!/usr/bin/env bash
# The trainer for a GPU, tried on a processor: gpu.sh trains a small 4x4 net of every family, a killed training goes on, bad input is refused,
# a net reaches 95 %, and what was written is what `ergometer parity` computes from it on every backend. Minutes; skipped where there is
# no PyTorch. PYTHON names the Python that has it,
# ERGOMETER_EXE the program instead of the one that cargo builds.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    [ ! -x target/peers-venv/bin/python ] || python=target/peers-venv/bin/python
fi
"$python" -c 'import torch, numpy' 2>/dev/null || {
    printf 'SKIPPED: ci/train: %s has no PyTorch\nhint: ci/peers/install.sh --pytorch, or let PYTHON name one that has it\n' "$python" | tee -a -- "${ERGOMETER_CI_SKIPPED:-/dev/null}" >&2
    exit 0
}
ergometer=(cargo run --release --quiet --)
[ -z "${ERGOMETER_EXE:-}" ] || ergometer=("$ERGOMETER_EXE")
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# one thread each, and memory kept: what is tried here is that it works, on a machine that others use
export OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
train=("$python" ci/train/train.py)

say "what can be told without training"
"$python" ci/train/test.py

say "data"
printf '[task]\nkind = "sudoku"\nsize = 4\nclues = [4, 6]\n' >"$scratch/task.toml"
for split in train test; do
    "${ergometer[@]}" dataset "$scratch/task.toml" --split "$split" --examples 400 --out "$scratch/$split.safetensors"
done
data=(--data "$scratch/train.safetensors" --eval "$scratch/test.safetensors")
"$python" ci/train/pack.py "$scratch/train.safetensors" "$scratch/packed.safetensors"

net() { # name, fields of the model, optimiser's table
    cat >"$scratch/$1.toml" <<TOML
about = "A net of ci/train/check.sh."
out = "$1"
steps = ${4:-100000}
batch = 64
seed = 1
eval_every = 50
checkpoint_every = 50
[model]
$2
seq_len = 16
vocab_size = 6
hidden_size = 64
num_heads = 2
expansion = 2.0
[task]
kind = "sudoku"
size = 4
clues = [4, 6]
eval_examples = 400
[optimiser]
lr = 2e-3
warmup = 20
weight_decay = 0.1
clip = 1.0
ema = 0.98
[torch]
compile = false
eval_steps = [1, 4]
$3
TOML
}
mixer='mlp_t = true
pos_encodings = "none"'
attention='mlp_t = false
pos_encodings = "rope"'
cycles='H_cycles = 2
L_cycles = 2
L_layers = 1
halt_max_steps = 4'
net trm-mlp "model_type = \"trm\"
$cycles
$mixer" 'curriculum = [[0.0, 1, 1], [0.3, 2, 2]]'
net trm-att "model_type = \"trm\"
$cycles
$attention" 'optimiser = "muon"
reveal = [0, 4]
reveal_share = 0.5'
net looped "model_type = \"looped\"
num_layers = 2
loops = 1
halt_max_steps = 4
$attention" 'through = 2'
net dense "model_type = \"encoder\"
num_layers = 2
pos_encodings = \"learned\"" 'optimiser = "muon"
label_smoothing = 0.1'
net moe "model_type = \"moe-encoder\"
num_layers = 2
num_experts = 4
experts_per_token = 2
expert_inner = 64
$mixer" 'optimiser = "muon"'

say "gpu.sh on a processor: every family"
: >"$scratch/plan"
families=(trm-mlp trm-att looped dense moe)
for name in "${families[@]}"; do printf '%s 1\n' "$scratch/$name.toml" >>"$scratch/plan"; done
PYTHON=$python ci/train/gpu.sh "$scratch/plan" 100 "$scratch/out" --data "$scratch/packed.safetensors" --eval "$scratch/test.safetensors" --device cpu --no-warm
tar -tf "$scratch/out/models.tar" >"$scratch/listed"
for name in "${families[@]}"; do
    for file in config.json model.safetensors log.csv train.toml training.json README.md; do
        grep -qx "models/$name/$file" "$scratch/listed" || fail "models.tar has no $name/$file"
    done
    [ -s "$scratch/out/$name.checkpoint.safetensors" ] || fail "no checkpoint of $name came back"
done
[ "$(find "$scratch/out" -maxdepth 1 -type f | wc -l)" -le 8 ] || fail "more than eight files"

say "what was written is what every backend computes"
for name in "${families[@]}"; do
    model=$scratch/out/models/$name
    for precision in f32 bf16; do
        "$python" ci/train/vectors.py "$model" --data "$scratch/test.safetensors" --precision "$precision" --out "$model/$precision.safetensors"
    done
    for backend in reference native tract candle; do
        "${ergometer[@]}" parity --model "$model" --backend "$backend" --vectors "$model/f32.safetensors"
    done
    "${ergometer[@]}" parity --model "$model" --backend native --precision bf16 --vectors "$model/bf16.safetensors"
done

say "mazes, packed and as they are"
printf '[task]\nkind = "maze"\nside = 5\n' >"$scratch/maze-task.toml"
for split in train test; do
    "${ergometer[@]}" dataset "$scratch/maze-task.toml" --split "$split" --examples 200 --out "$scratch/maze-$split.safetensors"
done
"$python" ci/train/pack.py "$scratch/maze-train.safetensors" "$scratch/maze-packed.safetensors"
sed -e 's/^seq_len = 16/seq_len = 25/' -e 's/^kind = "sudoku"/kind = "maze"/' -e 's/^size = 4/side = 5/' -e '/^clues/d' "$scratch/dense.toml" >"$scratch/maze.toml"
for file in packed train; do
    "${train[@]}" "$scratch/maze.toml" --data "$scratch/maze-$file.safetensors" --eval "$scratch/maze-test.safetensors" --seconds 8 --out "$scratch/maze-$file" --device cpu
    grep -q '"class": "up to 20 steps"' "$scratch/maze-$file/training.json" || fail "training.json has no accuracy by length of path"
done

say "a killed training goes on"
killed=$scratch/killed
"${train[@]}" "$scratch/moe.toml" "${data[@]}" --seconds 300 --out "$killed" --device cpu --checkpoint-seconds 1 >"$scratch/first" 2>&1 &
child=$!
for _ in $(seq 120); do
    [ ! -s "$killed/checkpoint.previous.safetensors" ] || break
    sleep 0.5
done
kill -KILL "$child"
wait "$child" || true
[ -s "$killed/checkpoint.safetensors" ] || fail "the killed training left no checkpoint: $(cat "$scratch/first")"
"${train[@]}" "$scratch/moe.toml" "${data[@]}" --seconds 15 --out "$killed" --device cpu --resume
grep -q 'went on at step [1-9]' "$killed/training.json" || fail "it did not go on from the checkpoint"

say "bad input"
refused() { # the words that the message has, then the command
    local words=$1 outcome=0
    shift
    "$@" >"$scratch/said" 2>&1 || outcome=$?
    [ "$outcome" -eq 2 ] && grep -q '^hint: ' "$scratch/said" && grep -q -- "$words" "$scratch/said" || fail "exit code $outcome and not 2 with \`$words\` and a hint: $* said
$(tail -n 5 "$scratch/said")"
}
cp -- "$killed/checkpoint.previous.safetensors" "$scratch/good"
head -c 5000 "$scratch/good" >"$killed/checkpoint.safetensors"
refused 'checkpoint.previous' "${train[@]}" "$scratch/moe.toml" "${data[@]}" --seconds 5 --out "$killed" --device cpu --resume
cmp -s "$killed/checkpoint.previous.safetensors" "$scratch/good" || fail "the good checkpoint was not kept"
sed 's/^batch/btach/' "$scratch/moe.toml" >"$scratch/bad.toml"
refused 'btach.*did you mean' "${train[@]}" "$scratch/bad.toml" "${data[@]}" --seconds 5 --out "$scratch/x" --device cpu
sed 's/^hidden_size = 64/hidden_size = 65/' "$scratch/looped.toml" >"$scratch/bad.toml"
refused 'hidden_size' "${train[@]}" "$scratch/bad.toml" "${data[@]}" --seconds 5 --out "$scratch/x" --device cpu
refused "side 'train'" "${train[@]}" "$scratch/moe.toml" --data "$scratch/train.safetensors" --eval "$scratch/train.safetensors" --seconds 5 --out "$scratch/x" --device cpu
sed 's/^size = 4/size = 6/' "$scratch/moe.toml" >"$scratch/bad.toml"
refused 'size 4' "${train[@]}" "$scratch/bad.toml" "${data[@]}" --seconds 5 --out "$scratch/x" --device cpu
refused "'maze'" "${train[@]}" "$scratch/moe.toml" --data "$scratch/maze-train.safetensors" --eval "$scratch/test.safetensors" --seconds 5 --out "$scratch/x" --device cpu
head -c 3000 "$scratch/train.safetensors" >"$scratch/torn.safetensors"
refused 'torn.safetensors' "${train[@]}" "$scratch/moe.toml" --data "$scratch/torn.safetensors" --eval "$scratch/test.safetensors" --seconds 5 --out "$scratch/x" --device cpu
# as a full disk: no file may grow beyond what the model needs
cp -- "$scratch/good" "$killed/checkpoint.safetensors"
refused 'checkpoint.safetensors.*cannot be written' bash -c 'ulimit -f 1000; exec "$@"' - "${train[@]}" "$scratch/moe.toml" "${data[@]}" --seconds 8 --out "$killed" --device cpu --resume
cmp -s "$killed/checkpoint.safetensors" "$scratch/good" || fail "the good checkpoint was not kept on a full disk"

say "95 % in minutes"
sed 's/^eval_every = 50/eval_every = 50\nrequire_accuracy = 0.95/' "$scratch/trm-mlp.toml" >"$scratch/whole.toml"
"${train[@]}" "$scratch/whole.toml" "${data[@]}" --seconds "${ERGOMETER_TRAIN_SECONDS:-180}" --out "$scratch/whole" --device cpu

say "the trainer for a GPU is as it should be, as far as a processor can tell"
