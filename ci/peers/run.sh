#!/usr/bin/env bash
# Starts the worker of a peer (`openvino` or `pytorch`) with the Python that has its packages: what ERGOMETER_PEERS_PYTHON names, else the one
# that ci/peers/install.sh made. Where there is none it says so in the protocol's words, and that is the end of the case.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${ERGOMETER_PEERS_PYTHON:-$here/../../target/peers-venv/bin/python}
if ! command -v -- "$python" >/dev/null; then
    echo '{"unavailable": {"what": "case", "reason": "there is no Python with the peers'"'"' packages here", "hint": "run ci/peers/install.sh, or let ERGOMETER_PEERS_PYTHON name one"}}'
    exit 0
fi
exec "$python" -B "$here/$1_worker.py"
