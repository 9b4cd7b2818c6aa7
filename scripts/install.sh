#!/usr/bin/env bash
# Installs the library and the program below a prefix, as `make install PREFIX=...` does:
#
#     scripts/install.sh LIBRARY PROGRAM PREFIX [STATIC-LIBRARY]
#
# DESTDIR, where it is set, is put before PREFIX; LIBDIR is where libraries lie below it, `lib` unless it is set. The
# files find each other by relative paths, so the tree can be moved.
set -euo pipefail

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
  echo "usage: scripts/install.sh LIBRARY PROGRAM PREFIX [STATIC-LIBRARY]" >&2
  exit 2
fi
library=$1 program=$2 prefix=${DESTDIR:-}$3 static=${4:-}
libdir=${LIBDIR:-lib}
source=$(cd "$(dirname "$0")/.." && pwd)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$source/Cargo.toml" | head -n 1)
soname=$(readelf --dynamic --wide "$library" | sed -n 's/.*Library soname: \[\(.*\)\]/\1/p')
abi=${soname#libbespoke.so.}
# From a folder below LIBDIR to the prefix.
up=$(sed 's|[^/][^/]*|..|g' <<<"$libdir")

install -d "$prefix/bin" "$prefix/include" "$prefix/$libdir/pkgconfig" "$prefix/$libdir/cmake/bespoke"
install -m 755 "$program" "$prefix/bin/bespoke"
install -m 755 "$library" "$prefix/$libdir/libbespoke.so.$version"
ln -sfn "libbespoke.so.$version" "$prefix/$libdir/$soname"
ln -sfn "libbespoke.so.$version" "$prefix/$libdir/libbespoke.so"
[ -z "$static" ] || install -m 644 "$static" "$prefix/$libdir/libbespoke.a"
install -m 644 "$source/include/bespoke.h" "$source/include/bespoke.hpp" "$prefix/include"
# The .cu is compiled into the host program, which includes it like a header.
install -m 644 "$source/bindings/cuda/bespoke_cuda.h" "$source/bindings/cuda/bespoke_cuda.cu" "$prefix/include"

fill() {
  sed -e "s|@VERSION@|$version|g" -e "s|@ABI@|$abi|g" -e "s|@ABI_PATTERN@|${abi//./\\\\\\\\.}|g" -e "s|@LIBDIR@|$libdir|g" \
    -e "s|@UP@|$up|g" "$source/packaging/$1.in" >"$2/$1"
}
fill bespoke.pc "$prefix/$libdir/pkgconfig"
fill bespoke-config.cmake "$prefix/$libdir/cmake/bespoke"
fill bespoke-config-version.cmake "$prefix/$libdir/cmake/bespoke"

# What the program says of itself.
install -d "$prefix/share/man/man1" "$prefix/share/bash-completion/completions" \
  "$prefix/share/zsh/site-functions" "$prefix/share/fish/vendor_completions.d"
"$program" man "$prefix/share/man/man1"
"$program" completions bash >"$prefix/share/bash-completion/completions/bespoke"
"$program" completions zsh >"$prefix/share/zsh/site-functions/_bespoke"
"$program" completions fish >"$prefix/share/fish/vendor_completions.d/bespoke.fish"
