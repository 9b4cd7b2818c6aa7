#!/usr/bin/env bash
# Debian packages of what `build.sh` made: the library under the name of its soname, libbespoke-dev and the program.
#
#     scripts/release/deb.sh BUILT FOLDER
set -euo pipefail

built=$(realpath "${1:?usage: scripts/release/deb.sh BUILT FOLDER}")
out=$(realpath -m "${2:?usage: scripts/release/deb.sh BUILT FOLDER}")
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soname=$(readelf --dynamic --wide "$built/libbespoke.so" | sed -n 's/.*Library soname: \[\(.*\)\]/\1/p')
abi=${soname#libbespoke.so.}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export BESPOKE_SOURCE=$PWD BESPOKE_BUILT=$built

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debian=$work/bespoke/debian
mkdir "$work/bespoke"
cp -r packaging/debian "$debian"
sed "s/@ABI@/$abi/g" "$debian/control.in" >"$debian/control"
mv "$debian/library.install" "$debian/libbespoke$abi.install"
for package in "libbespoke$abi" libbespoke-dev bespoke; do
  echo LICENSES-OF-DEPENDENCIES.md >"$debian/$package.docs"
done
cp LICENSES-OF-DEPENDENCIES.md "$work/bespoke"
cat >"$debian/changelog" <<END
bespoke ($version-1) unstable; urgency=medium

  * Release $version; what changed is in CHANGELOG.md.

 -- The libbespoke authors <bespoke@localhost>  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END
(cd "$work/bespoke" && dpkg-buildpackage --build=binary --unsigned-changes --no-check-builddeps)
mkdir -p "$out"
cp "$work"/*.deb "$out"
