#!/usr/bin/env bash
# What a release has built in, as CycloneDX has it:
#
#     scripts/release/sbom.sh FILE.json
set -euo pipefail

out=$(realpath -m "${1:?usage: scripts/release/sbom.sh FILE}")
cd "$(dirname "$0")/../.."
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
cargo cyclonedx --quiet --format json --no-build-deps --spec-version 1.5 --no-default-features --features cli,onnx --target "$(rustc -vV | sed -n 's/^host: //p')" \
  --override-filename sbom-of-release
# Where this folder lies is nobody's concern.
sed "s|file://$PWD|file:///bespoke|g" sbom-of-release.json >"$out"
# The others of the workspace have one each.
rm {.,fuzz,tests}/sbom-of-release.json
