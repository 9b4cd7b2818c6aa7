#!/usr/bin/env bash
# Builds library and program as a release has them, without libtorch, for glibc 2.28 and later:
#
#     scripts/release/build.sh FOLDER
#
# writes FOLDER/{libbespoke.so,libbespoke.a,bespoke}. Zig's C library and linker are those of the environment that
# `make release-tools` makes. No path of this machine is in what is built: two clones give the same bytes.
set -euo pipefail

out=$(realpath -m "${1:?usage: scripts/release/build.sh FOLDER}")
cd "$(dirname "$0")/../.."
cargo_home=${CARGO_HOME:-$HOME/.cargo}
triple=$(rustc --version --verbose | sed -n 's/^host: //p')
target=${BESPOKE_RELEASE_TARGET:-target/release-build}

export CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols
export RUSTFLAGS="--remap-path-prefix=$PWD=bespoke --remap-path-prefix=$cargo_home=cargo"
export CFLAGS="-ffile-prefix-map=$PWD=bespoke -ffile-prefix-map=$cargo_home=cargo -g0"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

lean=(--release --locked --no-default-features --target "$triple.2.28")
# The library with what it alone needs: the allocator of the program is no part of it.
cargo-zigbuild rustc "${lean[@]}" --features onnx --lib --crate-type cdylib,staticlib
cargo-zigbuild zigbuild "${lean[@]}" --features cli,onnx --bin bespoke

mkdir -p "$out"
install -m 755 "$target/$triple/release/bespoke" "$target/$triple/release/libbespoke.so" "$out"
install -m 644 "$target/$triple/release/libbespoke.a" "$out"
