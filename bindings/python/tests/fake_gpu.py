"""A GPU that is not there: `bespoke_solver.gpu` with the kernels of bindings/cuda, compiled for the host."""

import ctypes
import subprocess
from contextlib import contextmanager
from pathlib import Path

import torch
from bespoke_solver.gpu import Kernels
from bespoke_solver.solve import Solve

ROOT = Path(__file__).resolve().parents[3]


def build(folder: Path) -> ctypes.CDLL:
    """The library whose operations they are."""
    include = [f"-I{ROOT / part}" for part in ("include", "bindings/cuda", "tests/c")]
    objects = []
    for source, flags in [
        (ROOT / "bindings/cuda/bespoke_cuda.cu", ["-xc++", "-std=c++17", "-DBESPOKE_CUDA_ON_HOST", "-Dbespoke_cuda_ops=kernels_ops"]),
        (Path(__file__).with_name("fake_gpu.c"), ["-xc", "-std=c99", "-D_DEFAULT_SOURCE"]),
    ]:  # fmt: skip
        objects.append(str(folder / f"{source.stem}.o"))
        flags = [*flags, "-O2", "-ffp-contract=off", "-fPIC", "-Wall", "-Werror", *include]
        subprocess.run(["c++" if source.suffix == ".cu" else "cc", *flags, "-c", str(source), "-o", objects[-1]], check=True)
    library = folder / "fake_gpu.so"
    subprocess.run(["c++", "-shared", *objects, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def counts(library: ctypes.CDLL) -> dict[str, int]:
    """Operations so far."""
    found = (ctypes.c_uint * 3)()
    library.fake_counts(found)
    return dict(zip(("allocations", "launches", "copies"), found))


@contextmanager
def taken_for_a_gpus(library: ctypes.CDLL):
    """BespokeScheduler takes the host's tensors for that GPU's, meanwhile."""
    plain, own = Solve._in_place, Kernels(library, torch.device("cpu"))
    Solve._in_place = lambda self, k, output, sample, _: plain(self, k, output, sample, own)
    try:
        yield
    finally:
        Solve._in_place = plain
