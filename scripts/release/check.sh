#!/usr/bin/env bash
# Whether this tree can be released: the crate as it would be published, and what changed in Rust since the last tag.
set -euo pipefail

cd "$(dirname "$0")/../.."
scripts/release/abi.sh
cargo publish --dry-run --quiet --package bespoke --allow-dirty --no-default-features
last=$(git describe --tags --abbrev=0 --match 'v*' HEAD 2>/dev/null || true)
if [ -z "$last" ]; then
  echo "no tag yet: there is nothing that the crate's interface could be held against"
elif command -v cargo-semver-checks >/dev/null; then
  cargo semver-checks --baseline-rev "$last" --only-explicit-features --features onnx
else
  echo "type this first: cargo install cargo-semver-checks" >&2
  exit 1
fi
