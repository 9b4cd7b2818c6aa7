#!/usr/bin/env bash
# The Debian packages, and the archive where there is one, in a root file system where nothing of this project is, used by
# both examples, and the program:
#
#     debootstrap --variant=minbase --include=g++,pkg-config,cmake,make bookworm ROOT
#     scripts/release/test-packages.sh ROOT FOLDER-OF-PACKAGES
#
# As root. ROOT itself stays as it is: what happens, happens in a layer over it, which is thrown away.
set -euo pipefail

root=$(realpath "${1:?usage: scripts/release/test-packages.sh ROOT FOLDER}")
packages=$(realpath "${2:?usage: scripts/release/test-packages.sh ROOT FOLDER}")
cd "$(dirname "$0")/../.."
if [ -z "${BESPOKE_UNSHARED:-}" ]; then
  BESPOKE_UNSHARED=1 exec unshare --mount "$0" "$root" "$packages"
fi

layer=$(mktemp -d)
trap 'umount "$layer/root" "$layer"; rmdir "$layer"' EXIT
mount -t tmpfs -o size=2g tmpfs "$layer"
mkdir "$layer"/{upper,work,root}
mount -t overlay -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
mkdir "$layer/root/test"
cp "$packages"/*.deb examples/c/sample_analytic.c examples/cpp/replace_euler.cpp examples/cpp/ring.hpp tests/install/* \
  models/digits-mixture.json models/digits-mixture-modes.json "$layer/root/test"
find "$packages" -name 'libbespoke-*-linux-*.tar.gz' -exec cp -t "$layer/root/test" {} +

env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  chroot "$layer/root" /bin/bash -euo pipefail -c '
cd /test
if command -v bespoke cargo; then
  echo "this root is not an empty one" >&2
  exit 1
fi
dpkg --install ./*.deb >/dev/null
bespoke --version
man -w bespoke-train 2>/dev/null || test -e /usr/share/man/man1/bespoke-train.1.gz
# The README, without a runtime: a solver for a mixture of digits.
bespoke train --quiet --model digits-mixture.json --family rk2 --steps 4 --iterations 6 --batch 60 --pool 60 --validation 40 --out theta.json
bespoke eval --quiet --model digits-mixture.json --solver theta.json --solver midpoint@8 --count 50

c++ -std=c++17 -O1 $(pkg-config --cflags bespoke) replace_euler.cpp -o replace_euler $(pkg-config --libs bespoke)
cc -O1 $(pkg-config --cflags bespoke) sample_analytic.c -o sample_analytic $(pkg-config --libs bespoke) -lm
./replace_euler theta.json
./sample_analytic theta.json
readelf -d sample_analytic | grep -q "NEEDED.*libbespoke.so"

# The library inside the program.
cc -O1 $(pkg-config --cflags bespoke) sample_analytic.c -o static \
  -l:libbespoke.a $(pkg-config --static --libs bespoke | sed "s/.*-lbespoke//")
test "$(./static theta.json)" = "$(./sample_analytic theta.json)"
if readelf -d static | grep -q "NEEDED.*libbespoke"; then exit 1; fi

cmake -S . -B build >/dev/null && cmake --build build >/dev/null
./build/from_c theta.json
./build/from_cpp theta.json
dpkg --remove $(dpkg-query --show --showformat "\${Package} " "*bespoke*") >/dev/null
test ! -e /usr/bin/bespoke

# The archive, unpacked anywhere.
for archive in libbespoke-*-linux-*.tar.gz; do
  test -e "$archive" || break
  mkdir /anywhere
  tar -xzf "$archive" -C /anywhere
  prefix=$(echo /anywhere/libbespoke-*)
  "$prefix/bin/bespoke" eval --quiet --model digits-mixture.json --solver theta.json --solver midpoint@8 --count 50
  export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
  cc -O1 $(pkg-config --cflags bespoke) sample_analytic.c -o of_archive $(pkg-config --libs bespoke) -lm
  test "$(./of_archive theta.json)" = "$(./static theta.json)"
done'
echo "the packages of $packages: installed, used, removed"
