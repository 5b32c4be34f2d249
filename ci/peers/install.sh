#!/usr/bin/env bash
# Installs what the workers of the suite `peers` need into a virtual environment of their own, target/peers-venv, and prints its Python.
#
#     ci/peers/install.sh              OpenVINO (60 MB to fetch)
#     ci/peers/install.sh --pytorch    PyTorch too (3 GB to fetch, 5.5 GB on disk: see requirements-pytorch.txt)
#
# PYTHON names the Python to make it with (python3). Another Python that has the packages already needs no installation: let
# ERGOMETER_PEERS_PYTHON name it.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

pytorch=
case ${1:-} in
    '') ;;
    --pytorch) pytorch=yes ;;
    *) fail "unknown argument \`$1\`
hint: ci/peers/install.sh [--pytorch]" ;;
esac

venv=target/peers-venv
python=${PYTHON:-python3}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || fail "$python cannot make a virtual environment
hint: install the package that has the module venv (Debian: python3-venv)"
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary=:all:)
no_index() {
    fail "pip could not install what $1 pins
hint: it needs a package index, by pip's own settings (PIP_INDEX_URL), and a Python that these versions support: $("$python" --version)"
}

say "OpenVINO"
"${pip[@]}" --quiet --no-deps -r ci/peers/requirements.txt || no_index ci/peers/requirements.txt
"$venv/bin/python" -c 'import numpy, openvino' || fail "what was installed cannot be imported"
if [ -n "$pytorch" ]; then
    say "PyTorch"
    "${pip[@]}" --quiet -r ci/peers/requirements-pytorch.txt -c ci/peers/requirements.txt || no_index ci/peers/requirements-pytorch.txt
    "$venv/bin/python" -c 'import torch' || fail "what was installed cannot be imported"
fi
say "ready: \`ergometer run peers\`"
printf '%s\n' "$PWD/$venv/bin/python"
