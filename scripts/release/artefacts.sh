#!/usr/bin/env bash
# All that a release consists of, from the committed tree, with its SHA-256 sums:
#
#     scripts/release/artefacts.sh FOLDER
set -euo pipefail

out=$(realpath -m "${1:?usage: scripts/release/artefacts.sh FOLDER}")
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=libbespoke-$version
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git archive --format=tar --prefix="$name/" HEAD | gzip --no-name >"$out/$name.tar.gz"
scripts/release/build.sh "$work/built"
scripts/release/wheel.sh "$work/built/libbespoke.so" "$out"
scripts/release/deb.sh "$work/built" "$out"

# The same tree as `make install-lean`, to be unpacked anywhere.
tree=$name-linux-$(uname -m)
scripts/install.sh "$work/built/libbespoke.so" "$work/built/bespoke" "$work/$tree" "$work/built/libbespoke.a"
install -D -m 644 --target-directory "$work/$tree/share/doc/bespoke" LICENSE-* LICENSES-OF-DEPENDENCIES.md CHANGELOG.md
tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$tree" |
  gzip --no-name >"$out/$tree.tar.gz"

cargo package --quiet --package bespoke --allow-dirty --no-verify --no-default-features --target-dir "$work/package"
cp "$work/package/package/bespoke-$version.crate" "$out"
scripts/release/sbom.sh "$out/$name.cdx.json"
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
