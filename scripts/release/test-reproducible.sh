#!/usr/bin/env bash
# The same bytes from two clones of HEAD in folders of other names and lengths: every artefact, by its SHA-256.
set -euo pipefail

cd "$(dirname "$0")/../.."
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for clone in one another/and-deeper; do
  git clone --quiet --no-hardlinks "$here" "$work/$clone"
  "$work/$clone/scripts/release/artefacts.sh" "$work/$clone/artefacts"
  rm -rf "$work/$clone/target"
done
diff "$work/one/artefacts/SHA256SUMS" "$work/another/and-deeper/artefacts/SHA256SUMS"
cat "$work/one/artefacts/SHA256SUMS"
