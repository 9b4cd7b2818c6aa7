#!/usr/bin/env bash
# A wheel in empty environments of every Python that is here, 3.10 and later, and as type checkers see it:
#
#     scripts/release/test-wheel.sh WHEEL
set -euo pipefail

wheel=$(realpath "${1:?usage: scripts/release/test-wheel.sh WHEEL}")
cd "$(dirname "$0")/../../bindings/python/tests"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1

pythons() { # Of each version one interpreter.
  local minor python
  for minor in 10 11 12 13 14; do
    for python in $(type -ap "python3.$minor") "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
      if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python"
        break
      fi
    done
  done
}

ran=0
for python in $(pythons); do
  "$python" -m venv --clear "$work/empty"
  "$work/empty/bin/pip" install --quiet --only-binary :all: "$wheel"
  (cd "$work" && "$work/empty/bin/python" -I "$OLDPWD/smoke.py")
  ran=$((ran + 1))
done
if [ "$ran" -eq 0 ]; then
  echo "there is no Python 3.10 or later with venv" >&2
  exit 1
fi

# In the last of them; pyright brings its own node.
"$work/empty/bin/pip" install --quiet mypy==2.4.1 basedpyright==1.40.2
cp typed.py "$work"
cd "$work"
echo '{ "enableTypeIgnoreComments": true }' >pyrightconfig.json
"$work/empty/bin/mypy" --strict --warn-unused-ignores typed.py
"$work/empty/bin/basedpyright" --pythonpath "$work/empty/bin/python" --level error typed.py
echo "$ran Pythons, mypy and pyright"
