#!/usr/bin/env bash
# Fuzzes a target with libFuzzer, on the stable toolchain:
#
#     fuzz/run.sh documents|tensors|files|outputs EXECUTIONS
#
# Inputs that reach new code are kept in fuzz/new/TARGET beside those of fuzz/corpus/TARGET; an input
# that fails is left in fuzz/artifacts. With 0 executions, the corpus alone is run.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -ne 2 ]; then
  echo "usage: fuzz/run.sh documents|tensors|files|outputs EXECUTIONS" >&2
  exit 2
fi
target=$1 executions=$2
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes without a sanitizer; a nightly toolchain is not needed for it.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --quiet --profile fuzz --package bespoke-fuzz --target "$host" --bin "$target"

mkdir -p "new/$target" "corpus/$target" artifacts
options=(-artifact_prefix=artifacts/ -max_len=4096 -dict=json.dict -timeout=10 -rss_limit_mb=4096 -print_final_stats=1)
if [ "$executions" -eq 0 ]; then
  options+=(-runs=0)
  exec "../target/$host/fuzz/$target" "${options[@]}" "corpus/$target"
fi
exec "../target/$host/fuzz/$target" "${options[@]}" -runs="$executions" "new/$target" "corpus/$target"
