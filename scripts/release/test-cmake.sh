#!/usr/bin/env bash
# Both ways in which a CMake project builds libbespoke as a part of itself (docs/install.md), from this folder, offline.
set -euo pipefail

cd "$(dirname "$0")/../.."
source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$source/target}
theta=$source/packaging/conan/test_package/theta.json

for way in fetch external; do
  mkdir "$work/$way"
  cp tests/install/from_c.c tests/install/from_cpp.cpp "$work/$way"
done
programs='foreach(name c cpp)
  file(GLOB file from_${name}.*)
  add_executable(from_${name} ${file})
  target_link_libraries(from_${name} PRIVATE bespoke::bespoke)
endforeach()'

cat >"$work/fetch/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(engine C CXX)
set(CMAKE_CXX_STANDARD 17)
include(FetchContent)
FetchContent_Declare(bespoke SOURCE_DIR $source)
FetchContent_MakeAvailable(bespoke)
$programs
END
cmake -S "$work/fetch" -B "$work/fetch/build" -DBESPOKE_CARGO_TARGET="$CARGO_TARGET_DIR" >/dev/null
cmake --build "$work/fetch/build" >"$work/log" || { cat "$work/log" && exit 1; }

cat >"$work/external/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(superbuild NONE)
include(ExternalProject)
ExternalProject_Add(libbespoke
  SOURCE_DIR $source
  CONFIGURE_COMMAND "" BUILD_COMMAND "" BUILD_IN_SOURCE TRUE
  INSTALL_COMMAND make install-lean PREFIX=<INSTALL_DIR>)
ExternalProject_Add(engine DEPENDS libbespoke
  SOURCE_DIR $work/external/engine INSTALL_COMMAND ""
  BINARY_DIR $work/external/out
  CMAKE_ARGS -DCMAKE_PREFIX_PATH=$work/external/build/libbespoke-prefix)
END
mkdir "$work/external/engine"
mv "$work/external"/from_* "$work/external/engine"
cat >"$work/external/engine/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(engine C CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(bespoke 0.2 REQUIRED)
$programs
add_executable(inside from_c.c)
target_link_libraries(inside PRIVATE bespoke::static)
END
cmake -S "$work/external" -B "$work/external/build" >/dev/null
cmake --build "$work/external/build" >"$work/log" || { cat "$work/log" && exit 1; }

expected="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1) rk2 4"
for program in fetch/build/from_c fetch/build/from_cpp external/out/from_c external/out/from_cpp external/out/inside; do
  said=$("$work/$program" "$theta")
  [ "$said" = "$expected" ] || { echo "$program says $said, expected $expected" >&2 && exit 1; }
done
echo "FetchContent and ExternalProject: $expected"
