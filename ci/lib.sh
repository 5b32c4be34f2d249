# What the scripts share; to be sourced, from bash, after `set -euo pipefail`.
# Goes to the repository's root and takes away the variables that would point a run elsewhere.

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
unset ERGOMETER_HOME ERGOMETER_ISA ERGOMETER_POWERCAP ERGOMETER_NVML

say() { printf '\n== %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
