"""What `BespokeScheduler` knows of a solver, and what a solve keeps between evaluations."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from . import _native
from ._native import BFLOAT, FLOAT, DLTensor, lib
from .convention import Convention
from .theta import STATE, Combination, Theta

#: Under this name a sample carries its `Solve` to the next step.
HISTORY = "_bespoke_solve"

_DTYPES = {
    torch.float32: (FLOAT, 32),
    torch.float64: (FLOAT, 64),
    torch.float16: (FLOAT, 16),
    torch.bfloat16: (BFLOAT, 16),
}

class Grid:
    """A solver for a model on a device: everything that all solves share. Immutable."""

    def __init__(self, theta: Theta, convention: Convention, device: torch.device) -> None:
        self.theta = theta.for_output(convention.path, convention.output)
        self.nfe, self.steps = theta.nfe, theta.steps
        self.stages = self.theta.stages()
        self.scalars = convention.scalars([stage.t for stage in self.stages])
        values = convention.timestep_at([scalars.t for scalars in self.scalars])
        self.timesteps = torch.tensor(values, dtype=torch.float32, device=device)
        self.sigmas = torch.tensor([scalars.sigma for scalars in self.scalars] + [0.0], device=device)
        #: Whether an evaluation needs nothing but its sample.
        self.self_contained = [stage.self_contained for stage in self.stages]
        self._first, self._bytes = self.timesteps.data_ptr(), 4 * self.nfe
        self._on_cpu = self.timesteps.is_cpu
        self._by_value: dict[float, list[int]] = {}
        for k, value in enumerate(self.timesteps.tolist()):
            self._by_value.setdefault(value, []).append(k)

    def evaluation(self, timestep: Any, solve: Solve | None) -> int:
        """Which evaluation ``timestep`` is: by its place in `timesteps`, where it is an element, else by its value."""
        if isinstance(timestep, torch.Tensor):
            # An element lies in the memory of all; to read its value would wait for a GPU.
            offset = timestep.data_ptr() - self._first
            if 0 <= offset < self._bytes and timestep.is_cpu is self._on_cpu:
                return offset >> 2
            timestep = timestep.reshape(-1)[0]
        found = self._by_value.get(float(torch.tensor(float(timestep), dtype=torch.float32)))
        if found is None:
            raise ValueError(f"timestep is {float(timestep)}, expected one of timesteps: {self.timesteps.tolist()}")
        return solve.next if solve is not None and solve.next in found else found[0]


class Solve:
    """One batch on its way: what earlier evaluations leave for later ones."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        #: The evaluation it is due for.
        self.next = 0
        self._layout: Any = None
        self._handle: int | None = None
        #: What `_in_torch` keeps; the library keeps its own.
        self._registers: dict[int, torch.Tensor] = {}

    def advance(self, k: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """Evaluation ``k``: the next sample."""
        if output.shape != sample.shape:
            raise ValueError(f"model_output has shape {tuple(output.shape)}, expected {tuple(sample.shape)}, the sample's")
        on_host = sample.is_cpu and output.is_cpu
        if on_host and not ((output.requires_grad or sample.requires_grad) and torch.is_grad_enabled()):
            following = self._in_library(k, output, sample)
        else:
            following = self._in_torch(k, output, sample)
        self.next = k + 1
        return following

    def _in_library(self, k: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        if not sample.is_contiguous():
            sample = sample.contiguous()
        if not output.is_contiguous():
            output = output.contiguous()
        layout = sample.shape, sample.dtype, output.dtype
        if layout != self._layout:
            self._describe(*layout)
        following = torch.empty_like(sample)
        self._x.data = sample.data_ptr()
        self._u.data = output.data_ptr()
        self._following.data = following.data_ptr()
        status = lib.bespoke_sampler_advance(self._handle, k, self._x, self._u, self._following)
        if status:
            _native.check(status)
        return following

    def _describe(self, shape: torch.Size, dtype: torch.dtype, output_dtype: torch.dtype) -> None:
        """Descriptors for batches of this shape; what changes from call to call is where they lie."""
        unknown = [str(d) for d in (dtype, output_dtype) if d not in _DTYPES]
        if unknown:
            raise TypeError(f"dtype is {unknown[0]}, expected float32, float64, float16 or bfloat16")
        if self._handle is None:
            self._handle = _native.make(lib.bespoke_sampler_new, self.grid.theta._handle, None)
        self._sizes = (ctypes.c_int64 * len(shape))(*shape)

        def tensor(of: torch.dtype) -> DLTensor:
            sizes = ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int64))
            host = _native.DLDevice(_native.CPU, 0)
            return DLTensor(None, host, len(shape), _native.DLDataType(*_DTYPES[of], 1), sizes, None, 0)

        self._x, self._u, self._following = tensor(dtype), tensor(output_dtype), tensor(dtype)
        self._layout = shape, dtype, output_dtype

    def _in_torch(self, k: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The same with torch's operations and the library's scalars: on a GPU, and where gradients are asked for."""
        grid = self.grid
        stage, scalars = grid.stages[k], grid.scalars[k]
        wide = torch.promote_types(sample.dtype, torch.float32)
        state = sample.to(wide)
        if grid.self_contained[k]:
            self._registers = {STATE: state}
        elif not self._registers or self.next != k:
            raise _native.BespokeError(f"evaluation {k} builds on the ones before it", "BESPOKE_ERROR_STATE")
        velocity = output.to(wide) * scalars.output
        if scalars.x:
            velocity = velocity.add(state, alpha=scalars.x)
        point = self._combine(stage.next, velocity)
        kept = stage.kept and self._combine(stage.kept, velocity)
        self._registers[stage.next.target] = point
        if stage.kept is not None:
            self._registers[stage.kept.target] = kept
        return point.to(sample.dtype)

    def _combine(self, sum: Combination, velocity: torch.Tensor) -> torch.Tensor:
        total = velocity * sum.velocity
        for register, c in zip(sum.registers, sum.coefficients):
            total = total.add(self._registers[register], alpha=c)
        return total

    def __reduce__(self) -> tuple[Any, ...]:
        # A sample that is copied or stored leaves its history behind.
        return type(None), ()

    def __del__(self, free: Any = lib.bespoke_sampler_free) -> None:
        if handle := getattr(self, "_handle", None):
            free(handle)
