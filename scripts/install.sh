#!/usr/bin/env bash
# Installs the library and the program below a prefix, as `make install PREFIX=...` does:
#
#     scripts/install.sh LIBRARY PROGRAM PREFIX
#
# DESTDIR, where it is set, is put before PREFIX. The files find each other by relative paths, so the
# tree can be moved.
set -euo pipefail

if [ $# -ne 3 ]; then
  echo "usage: scripts/install.sh LIBRARY PROGRAM PREFIX" >&2
  exit 2
fi
library=$1 program=$2 prefix=${DESTDIR:-}$3
source=$(cd "$(dirname "$0")/.." && pwd)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$source/Cargo.toml" | head -n 1)
soname=$(readelf --dynamic --wide "$library" | sed -n 's/.*Library soname: \[\(.*\)\]/\1/p')
abi=${soname#libbespoke.so.}

install -d "$prefix/bin" "$prefix/include" "$prefix/lib/pkgconfig" "$prefix/lib/cmake/bespoke"
install -m 755 "$program" "$prefix/bin/bespoke"
install -m 755 "$library" "$prefix/lib/libbespoke.so.$version"
ln -sfn "libbespoke.so.$version" "$prefix/lib/$soname"
ln -sfn "$soname" "$prefix/lib/libbespoke.so"
install -m 644 "$source/include/bespoke.h" "$source/include/bespoke.hpp" "$prefix/include"

fill() {
  sed -e "s/@VERSION@/$version/g" -e "s/@ABI@/$abi/g" -e "s/@ABI_PATTERN@/${abi//./\\\\\\\\.}/g" "$source/packaging/$1.in" >"$2/$1"
}
fill bespoke.pc "$prefix/lib/pkgconfig"
fill bespoke-config.cmake "$prefix/lib/cmake/bespoke"
fill bespoke-config-version.cmake "$prefix/lib/cmake/bespoke"

# What the program says of itself.
install -d "$prefix/share/man/man1" "$prefix/share/bash-completion/completions" \
  "$prefix/share/zsh/site-functions" "$prefix/share/fish/vendor_completions.d"
"$program" man "$prefix/share/man/man1"
"$program" completions bash >"$prefix/share/bash-completion/completions/bespoke"
"$program" completions zsh >"$prefix/share/zsh/site-functions/_bespoke"
"$program" completions fish >"$prefix/share/fish/vendor_completions.d/bespoke.fish"
