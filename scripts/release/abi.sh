#!/usr/bin/env bash
# Within a soname nothing of the ABI goes or changes. Held against the last tag, or against TAG:
#
#     scripts/release/abi.sh [TAG [LIBRARY-OF-TAG LIBRARY]]
#
# the exported symbols, the functions and callbacks that the header declares, the place of every member, and the size of
# every struct that has none in itself. Two libraries are compared by abidiff besides (Debian: abigail-tools); of their
# types it sees nothing, since a release has no debugging information of them.
set -euo pipefail

cd "$(dirname "$0")/../.."
last=${1:-$(git describe --tags --abbrev=0 --match 'v*' HEAD 2>/dev/null || true)}
if [ -z "$last" ]; then
  echo "no tag yet: the ABI of this version is the first that is kept"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

soname() { # Of a Cargo.toml: MAJOR, or 0.MINOR.
  sed -n 's/^version = "\(0\.[0-9]*\|[1-9][0-9]*\).*/\1/p' | head -n 1
}
symbols() { cat; }
declarations() { # Functions and types of functions, a line each; structs are the layout's.
  cc -E -P -x c -nostdinc -I"$work" - | tr '\n' ' ' | sed 's/{[^}]*}//g' | tr ';' '\n' | tr --squeeze-repeats ' ' | grep '('
}
layout() {
  awk -F '[(,]' '/^MEMBER/ { if ($0 ~ /, struct_size, 0\)/) grows[$2] = 1; print }
    /^SIZE/ { sizes[$2] = $0 } END { for (name in sizes) if (!(name in grows)) print sizes[name] }'
}

: >"$work/stdint.h"
git show "$last:Cargo.toml" >"$work/Cargo.toml"
if [ "$(soname <Cargo.toml)" != "$(soname <"$work/Cargo.toml")" ]; then
  echo "another soname than that of $last: the ABI may differ"
  exit 0
fi
broken=0
for part in symbols:include/bespoke.symbols declarations:include/bespoke.h layout:tests/c/layout.c; do
  file=${part#*:}
  git show "$last:$file" | "${part%%:*}" | sort >"$work/before"
  "${part%%:*}" <"$file" | sort >"$work/now"
  lost=$(comm -23 "$work/before" "$work/now")
  if [ -n "$lost" ]; then
    printf '%s: this of %s is gone or changed, within one soname:\n%s\n' "$file" "$last" "$lost" >&2
    broken=1
  fi
done
if [ $# -eq 3 ]; then
  status=0
  abidiff "$2" "$3" || status=$?
  # 4 is a change, 8 one that breaks programs; 1 and 2 are failures of its own.
  [ $((status & 11)) -eq 0 ] || broken=1
fi
[ "$broken" -eq 0 ] && echo "all of the ABI of $last is there, unchanged"
exit "$broken"
