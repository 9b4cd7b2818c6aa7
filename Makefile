# Set-up, demo and tests of libbespoke. `make demo` and `make test` do everything themselves on a
# machine with Rust, a C and C++ compiler and Python 3 (which carries libtorch).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

TORCH := torch==2.11.0
LEAN := --no-deps $(TORCH) 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
STAMP := .venv/libtorch-2.11.0
BESPOKE := target/release/bespoke
LEAN_BUILD := --release --no-default-features

.PHONY: build demo demo-mixture test test-torch test-lean header install install-lean fuzz libtorch-cuda results clean

build: $(STAMP)
	cargo build --release

# libtorch from its Python wheel, without Python's own dependencies: 1.2 GB, CPU and CUDA's loader.
$(STAMP):
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(LEAN)
	ln -sfn "$$(cd .venv && echo lib/python3*/site-packages/torch)" .venv/libtorch
	touch $@

# Everything libtorch needs to run on an NVIDIA GPU: 4.7 GB.
libtorch-cuda: $(STAMP)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)

# Learns a solver for the shipped digits model, and compares it with the usual ones.
demo: build
	mkdir -p demo
	$(BESPOKE) train --model models/digits-fm-ot.json --family rk2 --steps 5 --out demo/theta.json
	$(BESPOKE) show demo/theta.json
	$(BESPOKE) eval --model models/digits-fm-ot.json --solver demo/theta.json --solver euler@10 \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --json demo/eval.json --png demo/samples.png

# The same without libtorch anywhere: the exact velocity of a Gaussian mixture of digits.
demo-mixture:
	mkdir -p demo
	cargo build $(LEAN_BUILD)
	$(BESPOKE) train --model models/digits-mixture.json --family rk2 --steps 5 --out demo/mixture-theta.json
	$(BESPOKE) eval --model models/digits-mixture.json --solver demo/mixture-theta.json \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --png demo/mixture-samples.png

test: test-lean test-torch

# Without libtorch.
test-lean:
	cargo test $(LEAN_BUILD)

test-torch: $(STAMP)
	cargo test --release

# Writes include/bespoke.h, include/bespoke.symbols and tests/c/layout.c anew.
header:
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test header --test abi_surface

# Library, headers, pkg-config and CMake files, program. `make install-lean` takes the build without libtorch.
PREFIX ?= /usr/local
install: build
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX)

install-lean:
	cargo build $(LEAN_BUILD)
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX)

# Trains the solvers of docs/results.md and makes its tables and pictures anew; `scripts/results --help`.
results: build
	scripts/results

# Ten million inputs; a few minutes.
fuzz:
	fuzz/run.sh documents 3000000
	fuzz/run.sh tensors 8000000

clean:
	rm -rf target demo build results
