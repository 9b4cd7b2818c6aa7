"""Time of one `step` in microseconds: BespokeScheduler next to diffusers' schedulers, on the same tensors, in one run.

    python bench/step.py [--shape 4 64 64] [--batch 1] [--repeats 7] [--fake-device]

Schedulers take turns; a figure is the least of the repeats' means over a whole solve, so that what else the machine
does counts little. A ratio below 1 means that BespokeScheduler is the faster one.

With --fake-device, what a step costs the host of a device where nothing takes time. That of diffusers' schedulers and of
torch's operations does not depend on the size of a sample: they are given one of a number a channel. BespokeScheduler
goes by the library's table of a device's operations, with torch's ("by torch"), and with operations in C that do nothing,
at the full size ("by kernels", how `bindings/cuda` is called). A GPU's driver takes some microseconds more for each
operation: how many a step queues stands beside.
"""

import argparse
import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from bespoke_solver import BespokeScheduler, Theta
from bespoke_solver.gpu import Kernels
from bespoke_solver.solve import Solve
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch.utils._python_dispatch import TorchDispatchMode


def identity(steps: int) -> Theta:
    """Knots that change nothing; a learned theta costs the same."""
    knots = 2 * steps
    return Theta.parse(
        {
            "format": "bespoke-theta",
            "version": 1,
            "family": "rk2",
            "steps": steps,
            "t": [i / knots for i in range(knots + 1)],
            "t_dot": [1.0] * knots,
            "s": [1.0] * (knots + 1),
            "s_dot": [0.0] * knots,
        }
    )


def schedulers() -> dict:
    flow = {"prediction_type": "flow_prediction"}
    vp = {"prediction_type": "epsilon"}
    made = {
        "BespokeScheduler rk2, flow": (BespokeScheduler(identity(5), **flow), 5),
        "BespokeScheduler rk2, epsilon": (BespokeScheduler(identity(5), **vp), 5),
        "BespokeScheduler dpm++2m, epsilon": (BespokeScheduler(solver="dpm++2m", **vp), 10),
        "FlowMatchEulerDiscrete": (FlowMatchEulerDiscreteScheduler(), 10),
        "EulerDiscrete": (EulerDiscreteScheduler(**vp), 10),
        "HeunDiscrete": (HeunDiscreteScheduler(**vp), 5),
        "DDIM": (DDIMScheduler(clip_sample=False, **vp), 10),
        "DPMSolverMultistep": (DPMSolverMultistepScheduler(**vp), 10),
        "UniPCMultistep": (UniPCMultistepScheduler(**vp), 10),
        "DEISMultistep": (DEISMultistepScheduler(**vp), 10),
    }
    return made


def solve(scheduler, steps: int, output: torch.Tensor, sample: torch.Tensor) -> float:
    """Mean time of a step, in seconds; what pipelines do between steps is not counted."""
    scheduler.set_timesteps(steps)
    spent, timesteps = 0.0, scheduler.timesteps
    for t in timesteps:
        if isinstance(scheduler, (EulerDiscreteScheduler, HeunDiscreteScheduler)):
            scheduler.scale_model_input(sample, t)  # else they warn
        start = time.perf_counter()
        sample = scheduler.step(output, t, sample, return_dict=False)[0]
        spent += time.perf_counter() - start
    return spent / len(timesteps)


#: A device whose operations do nothing but count their launches; its memory is the host's.
NOTHING = r"""
#include <stdlib.h>
#include "bespoke_cuda.h"
unsigned long launched;
static int32_t allocate(void *context, uint64_t bytes, void **memory) {
    (void)context;
    return (*memory = malloc(bytes)) == NULL;
}
static int32_t release(void *context, void *memory) { (void)context; free(memory); return 0; }
static int32_t combine(void *context, const bespoke_device_combination *asked) {
    (void)context, (void)asked;
    launched++;
    return 0;
}
static int32_t copy(void *context, void *to, const void *from, uint64_t bytes) {
    (void)context, (void)to, (void)from, (void)bytes;
    launched++;
    return 0;
}
static int32_t all_finite(void *context, const void *numbers, DLDataType dtype, uint64_t rows, uint64_t elements, uint8_t *out) {
    (void)context, (void)numbers, (void)dtype, (void)rows, (void)elements, (void)out;
    return 1;
}
void bespoke_cuda_ops(bespoke_cuda *gpu, bespoke_device_ops *ops) {
    bespoke_device_ops made = {sizeof made, 0, {kDLCUDA, 0}, gpu, allocate, release, combine, copy, all_finite};
    *ops = made;
}
"""


def nothing(folder: str) -> ctypes.CDLL:
    """`NOTHING` as a library."""
    root = Path(__file__).resolve().parents[3]
    source, library = Path(folder, "nothing.c"), Path(folder, "nothing.so")
    source.write_text(NOTHING, encoding="utf-8")
    include = [f"-I{root / 'include'}", f"-I{root / 'bindings/cuda'}"]
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", *include, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class Counter(TorchDispatchMode):
    """How many operations on samples torch is asked for that a device would queue: views and empty tensors are none."""

    FREE = ("aten.empty", "aten.view", "aten.slice", "aten.select", "aten.alias", "aten.detach", "aten.unsqueeze", "aten.expand")

    def __init__(self, like: torch.Tensor) -> None:
        super().__init__()
        self.count, self._least = 0, like.numel()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        of_samples = isinstance(made, torch.Tensor) and made.numel() >= self._least
        self.count += of_samples and not str(function).startswith(self.FREE)
        return made


def measure(every: dict, output: torch.Tensor, sample: torch.Tensor, repeats: int) -> dict[str, float]:
    """The least mean time of a step of each, in seconds."""
    best = dict.fromkeys(every, float("inf"))
    rounds = max(1, min(20, 1_000_000 // output.numel()))
    for _ in range(repeats):
        for name, (scheduler, steps) in every.items():
            with torch.no_grad():
                solve(scheduler, steps, output, sample)
                mean = sum(solve(scheduler, steps, output, sample) for _ in range(rounds)) / rounds
            best[name] = min(best[name], mean)
    return best


@contextmanager
def going(evaluate: Callable) -> Iterator[None]:
    """Makes BespokeScheduler take the host's samples so, meanwhile."""
    plain = Solve._in_place
    Solve._in_place = evaluate
    try:
        yield
    finally:
        Solve._in_place = plain


def by_torch(self: Solve, k: int, output: torch.Tensor, sample: torch.Tensor, _: None) -> torch.Tensor:
    return self._on_device(k, output, sample)


def by_kernels(every: dict, shape: tuple[int, ...], repeats: int) -> Iterator[tuple[str, float, float]]:
    """BespokeScheduler's steps with operations in C that do nothing: names, seconds, and what is queued."""
    plain = Solve._in_place
    with tempfile.TemporaryDirectory() as folder:
        library = nothing(folder)
        fake = Kernels(library, torch.device("cpu"))
        with going(lambda self, k, output, sample, _: plain(self, k, output, sample, fake)):
            output, sample = torch.randn(shape), torch.randn(shape)
            times = measure(every, output, sample, repeats)
            count = ctypes.c_ulong.in_dll(library, "launched")
            for name, (scheduler, steps) in every.items():
                count.value = 0
                solve(scheduler, steps, output, sample)
                yield f"{name}, by kernels", times[name], count.value / len(scheduler.timesteps)


def by_operations(every: dict, shape: tuple[int, ...], repeats: int) -> Iterator[tuple[str, float, float]]:
    """Steps by torch's operations on samples of a number a channel: names, seconds, and what is queued."""
    shape = shape[:2] + (1,) * (len(shape) - 2)
    output, sample = torch.randn(shape), torch.randn(shape)
    with going(by_torch):
        times = measure(every, output, sample, repeats)
        for name, (scheduler, steps) in every.items():
            with Counter(sample) as counter, torch.no_grad():
                solve(scheduler, steps, output, sample)
            named = f"{name}, by torch" if name.startswith("Bespoke") else name
            yield named, times[name], counter.count / len(scheduler.timesteps)


def on_a_fake_device(shape: tuple[int, ...], repeats: int) -> None:
    """Prints the host's time of a step, and what it queues."""
    every = schedulers()
    ours = {name: value for name, value in every.items() if name.startswith("Bespoke")}
    rows = [*by_kernels(ours, shape, repeats), *by_operations(every, shape, repeats)]
    fastest = min(seconds for name, seconds, _ in rows if not name.startswith("Bespoke"))
    print(f"{'scheduler, float32 ' + str(list(shape)):46} {'µs a step':>10} {'of the fastest of diffusers':>28} {'queued a step':>14}")
    for name, seconds, queued in rows:
        print(f"{name:46} {seconds * 1e6:10.1f} {seconds / fastest:28.2f} {queued:14.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[4, 64, 64])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fake-device", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = (arguments.batch, *arguments.shape)
    if arguments.fake_device:
        on_a_fake_device(shape, arguments.repeats)
        return
    output, sample = torch.randn(shape), torch.randn(shape)
    best = measure(schedulers(), output, sample, arguments.repeats)
    fastest = min(value for name, value in best.items() if not name.startswith("Bespoke"))
    print(f"{'scheduler, float32 ' + str(list(shape)):42} {'µs a step':>10} {'of the fastest of diffusers':>28}")
    for name, value in best.items():
        print(f"{name:42} {value * 1e6:10.1f} {value / fastest:28.2f}")


if __name__ == "__main__":
    main()
