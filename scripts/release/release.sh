#!/usr/bin/env bash
# What `make release VERSION=...` does: RELEASING.md says it in words. Nothing leaves this machine.
set -euo pipefail

version=${1:?usage: make release VERSION=MAJOR.MINOR.PATCH}
cd "$(dirname "$0")/../.."
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
  echo "the tree has changes that are not committed; a release is made of a commit" >&2
  exit 1
fi
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
  echo "the tag v$version is there already" >&2
  exit 1
fi

scripts/release/set-version.sh "$version"
scripts/release/licenses.sh LICENSES-OF-DEPENDENCIES.md
scripts/release/abi.sh
git commit --quiet --all --message "Release $version"
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
scripts/release/artefacts.sh "build/release/$version"
# Signed where git knows a key.
sign=--annotate
[ -z "$(git config user.signingkey || true)" ] || sign=--sign
git tag "$sign" --message "libbespoke $version" "v$version"
echo "v$version is tagged, and its artefacts lie in build/release/$version; RELEASING.md says how they are published."
