#!/usr/bin/env bash
# The site, in build/docs/html, without a network: the pages of docs/, and the references made of the header and of the
# Python package. Links between them are checked. `make docs` has the tools.
set -euo pipefail

cd "$(dirname "$0")/../.."
src=build/docs/src html=build/docs/html
rm -rf build/docs
mkdir -p build/docs
cp -r docs "$src"

# Pages that lie elsewhere in the repository, with links as they are from here.
page() {
  sed -e 's|](\(\.\./\)*docs/|](|g' -e 's|](\(\.\./\)*README.md)|](index.md)|g' -e 's|](\(\.\./\)*SECURITY.md)|](security.md)|g' "$1" >"$src/$2"
}
page bindings/python/README.md python.md
page models/README.md models.md
page CHANGELOG.md changelog.md
page CONTRIBUTING.md contributing.md
page docs/threats.md threats.md
page SECURITY.md security.md
python3 scripts/docs/c_reference.py include/bespoke.h >"$src/c-reference.md"
python scripts/docs/python_reference.py bindings/python/src >"$src/python-reference.md"

mdbook build
lychee --offline --no-progress --include-fragments --exclude-path print.html --exclude-path toc.html --exclude-path 404.html "$html"
