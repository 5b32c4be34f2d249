# What the scripts share; to be sourced, from bash, after `set -euo pipefail`.
# Goes to the repository's root and takes away the variables that would point a run elsewhere.

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
unset ERGOMETER_HOME ERGOMETER_ISA ERGOMETER_POWERCAP ERGOMETER_NVML

say() { printf '\n== %s\n' "$*" >&2; }
# ONNX Runtime's library, before a script changes the cache; without it, what needs it says so.
find_onnxruntime() {
    local library
    [ -z "${ERGOMETER_ONNXRUNTIME:-}" ] || return 0
    if library=$(cargo run --release --quiet -- fetch onnxruntime); then
        export ERGOMETER_ONNXRUNTIME="$library"
    fi
}
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
