#!/usr/bin/env bash
# Usage: check.sh [REVISION]
# Whether this tree can be released: the crate as it would be published, the ABI, and what changed in Rust since the
# revision, or else the last tag: cargo-semver-checks judges it, cargo-public-api lists it for the changelog.
set -euo pipefail

cd "$(dirname "$0")/../.."
scripts/release/abi.sh
cargo publish --dry-run --quiet --package bespoke --allow-dirty --no-default-features
last=${1:-$(git describe --tags --abbrev=0 --match 'v*' HEAD 2>/dev/null || true)}
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
# Of the crate in a folder, as a program sees it without impls that are derived. cargo-public-api would ask for a nightly
# compiler to have rustdoc's JSON; the stable one writes it too, and cargo-semver-checks has it from there.
interface() {
  RUSTC_BOOTSTRAP=1 cargo rustdoc --quiet --manifest-path "$1/Cargo.toml" --target-dir "$work/target" --lib \
    --no-default-features --features onnx -- -Z unstable-options --output-format json --cap-lints allow
  cargo public-api --rustdoc-json "$work/target/doc/bespoke.json" -sss
}
interface "$work/last" >"$work/before"
interface "$PWD" >"$work/now"
echo "what changed in Rust since $last (< gone, > new):"
diff "$work/before" "$work/now" || true
cargo semver-checks --baseline-root "$work/last" --only-explicit-features --features onnx
