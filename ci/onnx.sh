#!/usr/bin/env bash
# Exported ONNX files before outsiders: the standard's own checker, and ONNX Runtime called from Python against the recorded vectors.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# the build is none of what is checked here
cargo build --release --quiet
# kept between runs: installing takes longer than checking
venv=target/onnx-venv
wanted=$(sha256sum ci/onnx/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    say "installing what ci/onnx/requirements.txt pins"
    rm -rf -- "$venv"
    python3 -m venv "$venv" || fail "python3 cannot make a virtual environment
hint: install the package that has the module venv (Debian: python3-venv)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary=:all: -r ci/onnx/requirements.txt ||
        { # 75: not run, for want of something from outside; .ci/run says so at its end
            say "pip could not install what ci/onnx/requirements.txt pins, so NO EXPORTED FILE WAS CHECKED
hint: this check needs a package index; say which by pip's own settings (PIP_INDEX_URL), or run it where there is one"
            exit 75
        }
    printf '%s\n' "$wanted" >"$venv/installed"
fi

say "exported files: checker and ONNX Runtime"
"$venv/bin/python" ci/onnx/check.py target/release/ergometer
