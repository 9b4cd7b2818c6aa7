#!/usr/bin/env bash
# The wheel of a release, for every Linux of glibc 2.28 and later, around a library that `build.sh` made:
#
#     scripts/release/wheel.sh LIBRARY FOLDER
#
# auditwheel looks at what the library asks of the system, and gives the wheel its name; it refuses what asks for more.
set -euo pipefail

library=$(realpath "${1:?usage: scripts/release/wheel.sh LIBRARY FOLDER}")
out=$(realpath -m "${2:?usage: scripts/release/wheel.sh LIBRARY FOLDER}")
cd "$(dirname "$0")/../.."

plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
BESPOKE_WHEEL_LIBRARY=$library python -m build --no-isolation --wheel --outdir "$plain"
python -m build --no-isolation --sdist --outdir "$out"
auditwheel repair --plat "manylinux_2_28_$(uname -m)" --wheel-dir "$out" "$plain"/*.whl
