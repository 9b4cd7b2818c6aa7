"""A GPU's operations without Python between: ``bindings/cuda``, where it was compiled into a shared library.

    make cuda

The wheel of ``make python`` has it beside the package's library, where it is looked for; the environment variable
BESPOKE_CUDA_LIBRARY names another file.
"""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from pathlib import Path

import torch

from . import _native
from ._native import DLTensor, lib
from .device import TORCH_DTYPES


class _Gpu(ctypes.Structure):
    """``bespoke_cuda``."""

    _fields_ = [("device", ctypes.c_int), ("stream", ctypes.c_void_p)]


class Kernels:
    """The operations of ``library`` on ``device``, on torch's current stream there."""

    def __init__(self, library: ctypes.CDLL, device: torch.device) -> None:
        self.device = device
        self._gpu = _Gpu(device.index or 0, None)
        self.ops = _native.DeviceOps()
        library.bespoke_cuda_ops(ctypes.byref(self._gpu), ctypes.byref(self.ops))
        #: What the library calls the GPU.
        self.place = self.ops.device

    def sampler(self, theta: int) -> int:
        """A sampler of the theta with this handle, for tensors of this GPU."""
        return _native.make(lib.bespoke_sampler_new, theta, _native.SamplerOptions(device_ops=ctypes.pointer(self.ops)))

    def enter(self) -> None:
        """What follows is queued on torch's current stream."""
        if self.device.type == "cuda":
            self._gpu.stream = torch.cuda.current_stream(self.device).cuda_stream

    def view(self, tensor: DLTensor) -> torch.Tensor:
        """A copy of a tensor of the library's."""
        self.enter()
        shape = tuple(tensor.shape[: tensor.ndim])
        copied = torch.empty(shape, dtype=TORCH_DTYPES[tensor.dtype.code, tensor.dtype.bits], device=self.device)
        size = math.prod(shape) * copied.element_size()
        if answer := self.ops.copy(self.ops.context, copied.data_ptr(), tensor.data, size):
            raise RuntimeError(f"copying {size} bytes within {self.device}: the operation answered {answer}")
        return copied

    #: Raises what a status says.
    check = staticmethod(_native.check)


@cache
def _library() -> ctypes.CDLL | None:
    named = os.environ.get("BESPOKE_CUDA_LIBRARY")
    path = Path(named) if named else Path(__file__).with_name("libbespoke_cuda.so")
    if not named and not path.exists():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"BESPOKE_CUDA_LIBRARY: {path} cannot be loaded: {error}") from error


def kernels(device: torch.device) -> Kernels | None:
    """The operations of a CUDA device; None for every other device, and where they are not compiled."""
    if device.type != "cuda":
        return None
    library = _library()
    return None if library is None else Kernels(library, device)
