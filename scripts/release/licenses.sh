#!/usr/bin/env bash
# The licences of all that a release has built in, with their texts:
#
#     scripts/release/licenses.sh FILE
set -euo pipefail

out=$(realpath -m "${1:?usage: scripts/release/licenses.sh FILE}")
cd "$(dirname "$0")/../.."
cargo about generate --locked --no-default-features --features cli,onnx --fail packaging/licenses.hbs --output-file "$out"
