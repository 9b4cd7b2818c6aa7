"""A GPU's tensors by the kernels of bindings/cuda, compiled for the host."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from bespoke_solver import BespokeScheduler, gpu
from fake_gpu import build, counts, taken_for_a_gpus
from test_device import THETAS
from test_diffusers import noises
from test_solves import FLOW, VP, model_of

# They have a fake of their own.
pytestmark = pytest.mark.host_memory


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("gpu"))


def solve(scheduler, x, edit=None):
    model = model_of(scheduler)
    for i, t in enumerate(scheduler.timesteps):
        if edit == i:
            x = x * 0.9 + 0.01
        x = scheduler.step(model(x, t), t, x).prev_sample
    return x


@pytest.mark.parametrize("edit", [None, 3], ids=["", "edited"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("solver", [*THETAS, "heun", "euler"])
def test_a_scheduler_gives_the_same_bits_as_in_host_memory(solver, dtype, edit, library):
    learned = THETAS[solver] if solver in ("rk2", "ns") else None
    how = {"solver": solver} if learned is None else {"theta": learned}
    ends = []
    for fake in (False, True):
        scheduler = BespokeScheduler.from_config(VP if solver in ("dpm++2m", "unipc") else FLOW, **how)
        scheduler.set_timesteps(8 if learned is None else learned.steps)
        if fake:
            with taken_for_a_gpus(library):
                before = counts(library)
                ends.append(solve(scheduler, noises().to(dtype), edit))
            after = counts(library)
            assert after["launches"] - before["launches"] >= len(scheduler.timesteps)
        else:
            ends.append(solve(scheduler, noises().to(dtype), edit))
    assert torch.equal(*ends)


def test_an_evaluation_is_one_launch_and_allocates_nothing_after_the_first(library):
    scheduler = BespokeScheduler.from_config(VP, solver="dpm++2m")
    scheduler.set_timesteps(8)
    model, x, held = model_of(scheduler), noises(), []
    with taken_for_a_gpus(library):
        for t in scheduler.timesteps:
            before = counts(library)
            x = scheduler.step(model(x, t), t, x).prev_sample
            after = counts(library)
            assert after["launches"] - before["launches"] == 1
            assert after["copies"] == before["copies"]
            held.append(after["allocations"])
    assert held[0] == held[-1]


@pytest.mark.skipif("BESPOKE_LIBRARY" in os.environ, reason="not the wheel of `make python`")
def test_the_wheel_has_the_kernels_and_without_a_gpu_they_answer_an_error():
    kernels = gpu.kernels(torch.device("cuda", 0))
    assert kernels is not None and kernels.place.device_type == 2
    memory = ctypes.c_void_p()
    if not torch.cuda.is_available():
        assert kernels.ops.allocate(kernels.ops.context, 16, memory) != 0


def test_where_it_is_not_compiled_there_is_none():
    assert gpu.kernels(torch.device("cpu")) is None
    assert gpu.kernels(torch.device("meta")) is None


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    program = "import torch; from bespoke_solver import gpu; gpu.kernels(torch.device('cuda', 0))"
    missing = tmp_path / "none.so"
    named = os.environ | {"BESPOKE_CUDA_LIBRARY": str(missing)}
    run = subprocess.run([sys.executable, "-c", program], env=named, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and f"ImportError: BESPOKE_CUDA_LIBRARY: {missing} cannot be loaded" in run.stderr, run.stderr
