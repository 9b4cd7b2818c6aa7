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
LEAN_BUILD := --release --no-default-features --features cli,onnx

TRITON := build/triton
TRITON_STAMP := .venv-triton/tritonserver-2.51.0
TRITON_PYTHON := $(CURDIR)/.venv-triton/bin/python

.PHONY: build demo demo-mixture test test-torch test-lean test-mpi python test-python header install install-lean fuzz libtorch-cuda onnxruntime
.PHONY: triton test-triton soak-triton bench-triton triton-demo results clean

build: $(STAMP)
	cargo build --release

# libtorch from its Python wheel, without Python's own dependencies: 1.2 GB, CPU and CUDA's loader.
$(STAMP):
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(LEAN)
	ln -sfn "$$(cd .venv && echo lib/python3*/site-packages/torch)" .venv/libtorch
	touch $@

# ONNX Runtime's library from its Python wheel, without Python's own dependencies: 80 MB, CPU.
ONNX_STAMP := .venv/onnxruntime-1.32.0
$(ONNX_STAMP):
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps onnxruntime==1.32.0
	touch $@

onnxruntime: $(ONNX_STAMP)

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

demo/theta.json: | build
	mkdir -p demo
	$(BESPOKE) train --model models/digits-fm-ot.json --family rk2 --steps 5 --out $@

# The same without libtorch anywhere: the exact velocity of a Gaussian mixture of digits.
demo-mixture:
	mkdir -p demo
	cargo build $(LEAN_BUILD)
	$(BESPOKE) train --model models/digits-mixture.json --family rk2 --steps 5 --out demo/mixture-theta.json
	$(BESPOKE) eval --model models/digits-mixture.json --solver demo/mixture-theta.json \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --png demo/mixture-samples.png

test: test-lean test-torch

# Without libtorch.
test-lean: $(ONNX_STAMP)
	cargo test $(LEAN_BUILD)

test-torch: $(STAMP) $(ONNX_STAMP)
	cargo test --release

# Several processes over MPI, without libtorch. Needs libopenmpi-dev, openmpi-bin and libclang-dev. The program
# that it leaves behind is that build's.
test-mpi:
	cargo test $(LEAN_BUILD) --features mpi --test all mpi::

PYTHON_STAMP := .venv-python/diffusers-0.42.1

# Python with the whole of torch, and diffusers: 5 GB.
$(PYTHON_STAMP):
	python3 -m venv .venv-python
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) diffusers==0.42.1 transformers==5.24.0 \
	  build matplotlib pytest tqdm 'setuptools>=77,<82'
	touch $@

# The sdist and the wheel, and this one installed beside torch and diffusers. The program is built last, with
# libtorch: the wheel's library is built without.
python: $(STAMP) $(PYTHON_STAMP)
	rm -rf bindings/python/dist bindings/python/build
	CARGO_TARGET_DIR=$(CURDIR)/target .venv-python/bin/python -m build --no-isolation bindings/python
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
	  bindings/python/dist/*.whl
	cargo build --release --bin bespoke

# Also in an empty environment with numpy alone. The tests compare with the program.
test-python: python
	rm -rf .venv-numpy
	python3 -m venv .venv-numpy
	.venv-numpy/bin/python -m pip install --quiet --disable-pip-version-check bindings/python/dist/*.whl pytest
	cd bindings/python && ../../.venv-numpy/bin/python -m pytest tests/test_numpy.py
	cd bindings/python && ../../.venv-python/bin/python -m pytest

# Writes include/bespoke.h, include/bespoke.symbols, tests/c/layout.c and docs/train.schema.json anew.
header:
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all header::
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all abi_surface::
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all train_options::

# Library, headers, pkg-config and CMake files, program. `make install-lean` takes the build without libtorch.
PREFIX ?= /usr/local
install: build
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX)

install-lean:
	cargo build $(LEAN_BUILD)
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX)

# Every table and picture of figures in the docs, anew; `python3 scripts/results --help`.
results: python
	python3 scripts/results

# Sixteen million inputs; some minutes.
fuzz:
	fuzz/run.sh documents 3000000
	fuzz/run.sh tensors 8000000
	fuzz/run.sh files 5000000
	fuzz/run.sh outputs 200000

# A tritonserver (release 24.10) from its Python package, without what the package's Python half needs, and the
# clients: 250 MB. The server's Python models need numpy below 2.
$(TRITON_STAMP):
	python3 -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet --disable-pip-version-check --no-deps nvidia-pytriton==0.7.0
	.venv-triton/bin/python -m pip install --quiet --disable-pip-version-check \
	  'tritonclient[grpc,http]==2.73.0' numpy==1.26.4 2> >(grep -v pytriton >&2)
	touch $@

# The Triton backend and libbespoke beside it, in build/triton/backends/bespoke. Needs nlohmann-json3-dev;
# the server runs with tcmalloc where libtcmalloc-minimal4 is installed.
triton: build $(TRITON_STAMP)
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(TRITON)/prefix
	cmake -S bindings/triton -B $(TRITON)/cmake -DBESPOKE_ROOT=$(CURDIR)/$(TRITON)/prefix -DBESPOKE_TRITON_TESTS=ON
	cmake --build $(TRITON)/cmake
	cmake --install $(TRITON)/cmake --prefix $(TRITON)

# Against a real server on free ports of 127.0.0.1.
test-triton: triton
	cd bindings/triton/tests && $(TRITON_PYTHON) -m unittest
	cd bindings/triton/tests && $(TRITON_PYTHON) soak.py --seconds 20

# Ten minutes of load by 64 clients, every sample checked.
soak-triton: triton
	cd bindings/triton/tests && $(TRITON_PYTHON) soak.py --seconds 600

# The backend against the bare network, Python loops, and itself without continuous batching.
bench-triton: triton
	cd bindings/triton/bench && $(TRITON_PYTHON) speed.py

# A server with the digits, and a client that draws a picture: demo/triton.png.
triton-demo: triton demo/theta.json
	cd examples/triton && $(TRITON_PYTHON) demo.py --out ../../demo/triton.png

clean:
	rm -rf target demo build results bindings/python/build bindings/python/dist .venv-numpy
