#!/usr/bin/env bash
# Format, clippy and documentation; a warning is an error. Same profile as run and test, so that dependencies are checked once.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

say "rustfmt"
cargo fmt --all --check

say "clippy"
cargo clippy --release --workspace --all-targets -- -D warnings

say "rustdoc"
RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings" cargo doc --release --workspace --no-deps --document-private-items

say "scripts"
for script in .ci/run ci/*.sh ci/peers/*.sh ci/train/*.sh ci/gpu/*.sh; do
    bash -n "$script"
done
if command -v shellcheck >/dev/null; then
    shellcheck --shell=bash --external-sources .ci/run ci/*.sh ci/peers/*.sh ci/train/*.sh ci/gpu/*.sh
fi
