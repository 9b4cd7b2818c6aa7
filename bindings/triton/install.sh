#!/usr/bin/env bash
# Builds the backend for a Triton server, and libbespoke for it, without libtorch:
#
#     bindings/triton/install.sh /opt/tritonserver
#
# puts both into /opt/tritonserver/backends/bespoke. It needs Rust, a C++ compiler, cmake, make and nlohmann-json.
# TRITON_HEADERS is the folder of the server's own headers; without it, those declared here are used. BESPOKE_PREFIX is
# where libbespoke is installed already (`make install PREFIX=...`, which has libtorch).
set -euo pipefail

server=$(realpath -m "${1:?usage: bindings/triton/install.sh FOLDER-OF-THE-SERVER}")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

prefix=${BESPOKE_PREFIX:-$work/prefix}
[ -n "${BESPOKE_PREFIX:-}" ] || make install-lean PREFIX="$prefix"
cmake -S bindings/triton -B "$work/cmake" -DBESPOKE_ROOT="$prefix" ${TRITON_HEADERS:+-DTRITON_HEADERS="$TRITON_HEADERS"}
cmake --build "$work/cmake"
cmake --install "$work/cmake" --prefix "$server"
