#!/usr/bin/env bash
# Installs what the workers of the suite `peers` need into a virtual environment of their own, target/peers-venv, and prints its Python.
#
#     ci/peers/install.sh              OpenVINO (60 MB to fetch)
#     ci/peers/install.sh --pytorch    PyTorch too (3 GB to fetch, 5.5 GB on disk: see requirements-pytorch.txt)
#     ci/peers/install.sh --llama-cpp  llama.cpp instead, prebuilt, for language models (11 MB to fetch, by npm; numpy beside it)
#
# PYTHON names the Python to make it with (python3). Another Python that has the packages already needs no installation: let
# ERGOMETER_PEERS_PYTHON name it.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

pytorch=
llama=
case ${1:-} in
    '') ;;
    --pytorch) pytorch=yes ;;
    --llama-cpp) llama=yes ;;
    *) fail "unknown argument \`$1\`
hint: ci/peers/install.sh [--pytorch|--llama-cpp]" ;;
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

if [ -n "$llama" ]; then
    package=@node-llama-cpp/linux-x64@3.22.1
    archive=node-llama-cpp-linux-x64-3.22.1.tgz
    sum=0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0
    say "llama.cpp ($package)"
    if ! "$venv/bin/python" -c 'import numpy' 2>/dev/null; then
        "${pip[@]}" --quiet --no-deps "$(grep '^numpy==' ci/peers/requirements.txt)" || no_index ci/peers/requirements.txt
    fi
    folder=target/llama-cpp
    if ! printf '%s  %s\n' "$sum" "$folder/$archive" | sha256sum --check --quiet - 2>/dev/null; then
        mkdir -p "$folder"
        # none of its scripts are run
        npm pack --ignore-scripts --loglevel=error --no-update-notifier --pack-destination "$folder" "$package" >&2 || fail "npm could not get $package
hint: it needs npm and a registry, by npm's own settings; or bring $archive into $folder by hand"
        printf '%s  %s\n' "$sum" "$folder/$archive" | sha256sum --check --quiet - || fail "$folder/$archive is not the pinned file
hint: remove it and try again"
    fi
    tar -xzf "$folder/$archive" -C "$folder"
    say "ready: \`ci/peers/llama_bench.py MODEL.gguf\`"
    printf '%s\n' "$PWD/$venv/bin/python"
    exit 0
fi
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
