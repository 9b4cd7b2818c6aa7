#!/usr/bin/env bash
# Writes a version wherever one stands, and gives the changelog's first section that version and today's date:
#
#     scripts/release/set-version.sh VERSION
set -euo pipefail

version=${1:?usage: scripts/release/set-version.sh VERSION}
cd "$(dirname "$0")/../.."
if ! [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]]; then
  echo "VERSION is $version, expected MAJOR.MINOR.PATCH" >&2
  exit 2
fi
old=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

replace() { # FILE PATTERN REPLACEMENT: where FILE has the pattern, once.
  if [ "$(grep -c -- "$2" "$1")" -ne 1 ]; then
    echo "$1 has not one line like $2" >&2
    exit 1
  fi
  sed -i "s/$2/$3/" "$1"
}
replace Cargo.toml "^version = \"$old\"\$" "version = \"$version\""
replace packaging/vcpkg/bespoke/vcpkg.json "\"version\": \"$old\"" "\"version\": \"$version\""
replace packaging/conda/recipe.yaml "version: \"$old\"" "version: \"$version\""
sed -i "/^name = \"bespoke\"\$/{n;s/^version = .*/version = \"$version\"/}" Cargo.lock
replace CHANGELOG.md '^## .* - unreleased$' "## $version - $(date --utc +%F)"
