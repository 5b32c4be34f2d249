#!/usr/bin/env bash
# The parts that CI must not skip, by name. A part that is gone would not fail by itself: nothing would run it.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

scripts=(.ci/run ci/test.sh ci/lint.sh ci/suites.sh ci/required.sh ci/features.sh ci/onnx.sh ci/amx.sh ci/peers/install.sh ci/peers/run.sh ci/train/check.sh ci/train/gpu.sh ci/gpu/check.sh)
files=(
    README.md ARCHITECTURE.md GLOSSARY.md METHODS.md BIAS.md CONTRIBUTING.md LICENSE-MIT LICENSE-APACHE
    Cargo.lock rust-toolchain.toml rustfmt.toml ci/lib.sh ci/github/workflow.yml
    suites/quick.toml suites/matrix.toml suites/kernels.toml suites/peers.toml suites/gpu.toml suites/README.md ci/onnx/check.py ci/onnx/requirements.txt tests/it/matrix.rs reports/example/accuracy-latency.svg
    suites/timing/trm-mlp-512/config.json suites/timing/trm-mlp-256/config.json suites/timing/trm-att-128/config.json
    suites/timing/moe-top2of8/config.json suites/timing/dense-active/config.json
    ci/amx/emulator.c ci/amx/selftest.c
    ci/external/ergometer_worker.py ci/external/ergometer_worker.c docs/external.md ci/peers/peer.py ci/peers/openvino_worker.py ci/peers/pytorch_worker.py ci/peers/test.py ci/peers/llama_cpp.py ci/peers/llama_cpp_worker.py ci/peers/llama_bench.py ci/peers/test_llama_cpp.py ci/gpu/nvml.py ci/gpu/suite.py ci/peers/requirements.txt ci/peers/requirements-pytorch.txt
    ci/train/train.py ci/train/nets.py ci/train/plan.py ci/train/test.py suites/train/smoke-4x4.toml suites/train/gpu.plan suites/train/mazes.plan
    # tests that live in files of their own
    tests/it/main.rs reports/tests/it/main.rs kernels/src/tests.rs kernels/src/tests/single.rs src/models/tests.rs src/meters/rapl/tests.rs
    suites/src/sudoku/tests.rs suites/src/maze/tests.rs suites/src/suite/tests.rs
    # a checkpoint that PyTorch wrote
    tests/golden/released/step_7 tests/golden/released/all_config.yaml tests/golden/released/dataset.json tests/golden/released/record.py
)
models=(
    suites/models/trm-4x4 suites/models/dense-4x4 suites/models/trm-6x6 suites/models/dense-6x6 suites/models/moe-6x6
    suites/models/trm-arc suites/models/dense-arc suites/models/moe-arc
    tests/golden/trm-mlp-d64 tests/golden/trm-att-d64 tests/golden/hrm-d64
)
programs=(cargo cc python3)

missing=0
lack() {
    printf 'missing: %s\n' "$*" >&2
    missing=$((missing + 1))
}

for script in "${scripts[@]}"; do
    [ -x "$script" ] || lack "$script (as an executable file)"
done
for file in "${files[@]}"; do
    [ -s "$file" ] || lack "$file"
done
for model in "${models[@]}"; do
    for part in config.json model.safetensors; do
        [ -s "$model/$part" ] || lack "$model/$part"
    done
    case $model in
        tests/golden/*) [ -s "$model/vectors.safetensors" ] || lack "$model/vectors.safetensors" ;;
    esac
done
# and whatever else the quick suite names
while read -r model; do
    case " ${models[*]} " in
        *" suites/$model "*) ;;
        *) lack "suites/$model, which suites/quick.toml names, among the models of ci/required.sh" ;;
    esac
done < <(sed -n 's/^path = "\(.*\)"$/\1/p' suites/quick.toml)
for program in "${programs[@]}"; do
    command -v "$program" >/dev/null || lack "the program $program"
done
# what CI relies on besides is that the workspace's plain test command covers every crate
for member in '"."' '"kernels"' '"suites"' '"reports"'; do
    grep -q "^default-members = .*$member" Cargo.toml || lack "$member among default-members of Cargo.toml"
done

[ "$missing" -eq 0 ] || fail "$missing required parts are missing"
say "every required part is there"
