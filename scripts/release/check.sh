#!/usr/bin/env bash
# Whether this tree can be released: the crate as it would be published, the ABI, and what changed in Rust since the last
# tag, which cargo-semver-checks judges and cargo-public-api lists for the changelog.
set -euo pipefail

cd "$(dirname "$0")/../.."
scripts/release/abi.sh
cargo publish --dry-run --quiet --package bespoke --allow-dirty --no-default-features
last=$(git describe --tags --abbrev=0 --match 'v*' HEAD 2>/dev/null || true)
if [ -z "$last" ]; then
  echo "no tag yet: there is nothing that the crate's interface could be held against"
  exit 0
fi
for tool in cargo-semver-checks cargo-public-api; do
  command -v "$tool" >/dev/null || { echo "type this first: cargo install $tool" >&2 && exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/last"
git archive "$last" | tar -x -C "$work/last"
interface() { # Of the crate in a folder, as a program sees it without impls that are derived.
  cargo public-api --manifest-path "$1/Cargo.toml" --no-default-features --features onnx -sss
}
interface "$work/last" >"$work/before"
interface "$PWD" >"$work/now"
echo "what changed in Rust since $last (< gone, > new):"
diff "$work/before" "$work/now" || true
cargo semver-checks --baseline-root "$work/last" --only-explicit-features --features onnx
