#!/usr/bin/env bash
# `cargo cinstall` and `make install-lean` give the same tree of the library: the same files and links, the same headers,
# soname and exported symbols, and the same answers of pkg-config. make's has the program and CMake's files besides,
# which cargo-c knows nothing of.
set -euo pipefail

cd "$(dirname "$0")/../.."
command -v cargo-cinstall >/dev/null || { echo "type this first: cargo install cargo-c" >&2 && exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo cinstall --release --locked --no-default-features --features onnx --prefix /usr --libdir /usr/lib --destdir "$work/cargo"
make install-lean DESTDIR="$work/make" PREFIX=/usr

contents() { # Names, and where links lead.
  (cd "$work/$1" && find usr -type f -printf '%p\n' -o -type l -printf '%p -> %l\n' | sort)
}
ask() { # TREE OPTION...: what pkg-config says, as if the tree lay in a prefix of its own; each word once.
  PKG_CONFIG_LIBDIR="$work/$1/usr/lib/pkgconfig" pkg-config --define-variable=prefix=/prefix "${@:2}" bespoke |
    tr -s ' ' '\n' | sort -u
}
same() { # WHAT: that of both, as the function of that name tells it.
  diff "$work/cargo.said" "$work/make.said" || { echo "$1 differs: < of cargo cinstall, > of make install-lean" >&2 && exit 1; }
}
contents cargo >"$work/cargo.said"
contents make | grep -v -E '^usr/(bin/bespoke$|share/|lib/cmake/bespoke/)' >"$work/make.said"
same "what is installed"
for header in "$work/make/usr/include"/*; do
  cmp "$header" "$work/cargo/usr/include/$(basename "$header")"
done
for question in --modversion --cflags --libs "--static --libs"; do
  for tree in cargo make; do
    # shellcheck disable=SC2086 # options, one or two
    ask "$tree" $question >"$work/$tree.said"
  done
  same "pkg-config $question"
done
for tree in cargo make; do
  library=$work/$tree/usr/lib/libbespoke.so
  readelf --dynamic --wide "$library" | sed -n 's/.*soname: //p' >"$work/$tree.said"
  nm --dynamic --defined-only "$library" | awk '{ print $NF }' | sort >>"$work/$tree.said"
done
same "soname or symbols"
echo "cargo cinstall and make install-lean give the same library, headers and pkg-config file"
