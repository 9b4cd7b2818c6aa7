"""One batch on its way through a table: what earlier evaluations leave for later ones.

The state that a solve goes on from is the sample it is given. Where a table keeps a base from before, and the sample is
not the one that was answered, their difference is carried along: the base moves by as much as moves the point by that
difference, and what was kept of earlier evaluations stays as it is.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import torch

from . import _native, gpu
from ._arrays import HOST, Described, maker, view
from ._native import advance, lib
from .device import DTYPES, TorchDevice
from .grid import Grid, Table
from .theta import STATE, Combination

#: Under this name a sample carries its `Solve` to the next step.
HISTORY = "_bespoke_solve"

_TORCH = maker("torch")
#: Below this part of the base in a point, a difference moves the base by itself and no more.
_LEAST = 0.1


class Registers:
    """What a table's registers hold, as tensors; one that was not written holds nothing, 0."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.held: dict[int, torch.Tensor] = {}

    def advance(self, k: int, velocity: torch.Tensor) -> torch.Tensor:
        """Takes in the velocity of evaluation ``k``: the next point."""
        stage = self.table.stages[k]
        point = self._combine(stage.next, velocity)
        kept = None if stage.kept is None else self._combine(stage.kept, velocity)
        self.held[stage.next.target] = point
        if stage.kept is not None and kept is not None:
            self.held[stage.kept.target] = kept
        return point

    def _combine(self, row: Combination, velocity: torch.Tensor) -> torch.Tensor:
        total = velocity * row.velocity
        for register, c in zip(row.registers, row.coefficients):
            if register in self.held:
                total = total.add(self.held[register], alpha=c)
        return total

    def move(self, k: int, difference: torch.Tensor) -> None:
        """The sample that evaluation ``k`` is made at lies by ``difference`` beside the point."""
        made = self.table.stages[k - 1].next
        self._add(made.target, difference)
        if made.target != STATE and made.target not in self.table.stages[k].next.registers:
            # What follows is built on the state, so that moves as moves the point by the difference.
            share = dict(zip(made.registers, made.coefficients)).get(STATE, 0.0)
            self._add(STATE, difference / (share if abs(share) > _LEAST else 1.0))

    def _add(self, register: int, difference: torch.Tensor) -> None:
        held = self.held.get(register)
        self.held[register] = difference if held is None else held + difference


class Solve:
    """A batch in a table: the grid's own, or one whose evaluation 0 is the grid's evaluation ``first``.

    Args:
        grid: Whose evaluations are counted.
        table: What is run.
        first: The grid's evaluation that the table begins at.
        stop: The one that the next solve begins at; between the table's last evaluation and that the sample stays.
    """

    def __init__(self, grid: Grid, table: Table, first: int = 0, stop: int | None = None) -> None:
        self.grid, self.table, self.first = grid, table, first
        #: The grid's evaluation that it is due for, and the one that it is done at.
        self.due, self.stop = first, first + table.nfe if stop is None else stop
        self._layout: Any = None
        self._handle: int | None = None
        #: Where the library does not read the tensors itself.
        self._device: TorchDevice | gpu.Kernels | None = None
        #: What the differences of edited samples amount to.
        self._moved: Registers | None = None
        self._offset: torch.Tensor | None = None
        #: The sample that was answered last, and its version then.
        self._answered: Any = None
        self._version: int | None = 0
        self._dtype = torch.float32

    def advance(self, index: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The grid's evaluation ``index``: the next sample."""
        shape = sample.shape
        if output.shape != shape:
            if output.shape[:1] + (output.shape[1] // 2,) + output.shape[2:] != shape:
                raise ValueError(f"model_output has shape {tuple(output.shape)}, expected {tuple(shape)}, the sample's")
            output = output[:, : shape[1]]  # the other half is a learned variance
        k = index - self.first
        table = self.table
        if k >= table.nfe:
            self.due = index + 1
            return sample
        difference = None
        answered = self._answered
        if not table.self_contained[k] and (
            answered is None or sample is not answered() or self._version is None or sample._version != self._version
        ):
            difference = self._difference(k, sample)
        given, frame = sample, None if table.frames is None else table.frames[k]
        if frame is not None:
            output = output * frame.output + sample * frame.x if frame.x else output * frame.output
            if frame.state != 1.0:
                given = sample * frame.state
                difference = None if difference is None else difference * frame.state
        graded = torch.is_grad_enabled() and (output.requires_grad or given.requires_grad)
        if given.is_cpu and output.is_cpu and not graded:
            following = self._in_place(k, output, given, None)
        elif not graded and output.device == given.device and (kernels := self._kernels(given.device)) is not None:
            following = self._in_place(k, output, given, kernels)
        else:
            following = self._on_device(k, output, given)
        if table.self_contained[k]:
            self._moved = self._offset = None
        elif difference is not None or self._moved is not None:
            following = self._move(k, following, difference)
        if frame is not None and frame.following != 1.0:
            following = following * frame.following
        self.due = index + 1
        if table.carried[k]:
            self._answered = weakref.ref(following)
            try:
                self._version = following._version
            except RuntimeError:
                self._version = None  # of inference mode: whether it was written to, its numbers tell
        elif answered is not None:
            self._answered = None
        return following

    def _difference(self, k: int, sample: torch.Tensor) -> torch.Tensor | None:
        """What was done to the sample since evaluation ``k - 1`` answered it; None for nothing."""
        expected = self._expected(k)
        if expected is None or expected.shape != sample.shape or expected.device != sample.device:
            return None
        wide = torch.promote_types(sample.dtype, torch.float32)
        if sample.dtype != expected.dtype:
            # A cast alone is no edit.
            narrow = min(sample.dtype, expected.dtype, key=lambda dtype: torch.finfo(dtype).bits)
            if torch.equal(sample.to(narrow), expected.to(narrow)):
                return None
        elif torch.equal(sample, expected):
            return None
        return sample.to(wide) - expected.to(wide)

    def _expected(self, k: int) -> torch.Tensor | None:
        """What evaluation ``k - 1`` answered, from what is kept of it anyway: a pipeline may write into what it was answered."""
        if self._answered is None:
            return None
        times, point = _native.Tensor(), _native.Tensor()
        status = lib.bespoke_sampler_query(self._handle, times, point)
        if self._device is None:
            _native.check(status)
            expected = _TORCH(*view(point.contents, self))
        else:
            self._device.check(status)
            expected = self._device.view(point.contents).to(self._dtype)
        if self._offset is not None:
            expected = expected + self._offset.to(expected.dtype)
        frames = self.table.frames
        return expected if frames is None or frames[k - 1].following == 1.0 else expected * frames[k - 1].following

    def _kernels(self, device: torch.device) -> gpu.Kernels | None:
        """What the library reads tensors of ``device`` by where they are."""
        own = self._device
        if isinstance(own, gpu.Kernels) and own.device == device:
            return own
        return gpu.kernels(device)

    def _in_place(
        self, k: int, output: torch.Tensor, sample: torch.Tensor, kernels: gpu.Kernels | None
    ) -> torch.Tensor:
        """The evaluation, of tensors that the library reads where they are, or ``kernels``."""
        if not sample.is_contiguous():
            sample = sample.contiguous()
        if not output.is_contiguous():
            output = output.contiguous()
        layout = kernels, sample.shape, sample.dtype, output.dtype
        if layout != self._layout:
            self._describe(*layout)
        if kernels is not None:
            self._dtype = sample.dtype
            kernels.enter()
        following = torch.empty_like(sample)
        self._x.data = sample.data_ptr()
        self._u.data = output.data_ptr()
        self._following.data = following.data_ptr()
        x, u, to = self._tensors
        status = advance(self._sampler, k, x, u, to)
        if status:
            _native.check(status)
        return following

    def _on_device(self, k: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The evaluation, of tensors that the library cannot touch: on a GPU, and where gradients are carried along."""
        wide = torch.float64 if sample.dtype == torch.float64 else torch.float32
        self._dtype, state = sample.dtype, sample if sample.dtype == wide else sample.to(wide)
        device = self._device
        if not isinstance(device, TorchDevice) or device.device != sample.device:
            device = TorchDevice(sample.device)
        layout = device, sample.shape, wide, output.dtype
        if layout != self._layout:
            self._describe(*layout)
        self._x.data, self._u.data = device.lend(state), device.lend(output)
        self._following.data = device.room(state.numel() * state.element_size())
        x, u, to = self._tensors
        try:
            device.check(advance(self._sampler, k, x, u, to))
        finally:
            for lent in (self._x, self._u):
                device.take(lent.data)
            following = device.take(self._following.data)
        assert following is not None
        following = following.reshape(sample.shape)
        return following if sample.dtype == wide else following.to(sample.dtype)

    def _move(self, k: int, following: torch.Tensor, difference: torch.Tensor | None) -> torch.Tensor:
        """The library goes on from the points it knows; all is linear, so the rest is a solve of the differences."""
        if self._moved is None:
            assert difference is not None
            self._moved, self._offset = Registers(self.table), torch.zeros_like(difference)
        assert self._offset is not None
        if difference is not None:
            self._moved.move(k, difference)
            self._offset = self._offset + difference
        self._offset = self._moved.advance(k, self._offset * self.table.velocity(k)[0])
        return following + self._offset.to(following.dtype)

    def _describe(
        self, device: TorchDevice | gpu.Kernels | None, shape: torch.Size, dtype: torch.dtype, output_dtype: torch.dtype
    ) -> None:
        """Descriptors for batches of this shape; what changes from call to call is where they lie.

        ``device`` has the operations on the tensors; None where the library reads them itself.
        """
        unknown = [str(d) for d in (dtype, output_dtype) if d not in DTYPES]
        if unknown:
            raise TypeError(f"dtype is {unknown[0]}, expected float32, float64, float16 or bfloat16")
        if self._handle is None or device is not self._device:
            if self._handle is not None and self._answered is not None:
                message = (
                    f"evaluation {self.due} builds on the ones before it, and not all of them ask for gradients, or are on one"
                    " device: those of a step are alike, and those of a multistep solver all"
                )
                raise _native.BespokeError(message, "BESPOKE_ERROR_STATE")
            self._release()
            self._device = device
            theta = self.table.theta._handle
            self._handle = device.sampler(theta) if device else _native.make(lib.bespoke_sampler_new, theta, None)
            self._sampler = ctypes.c_void_p(self._handle)
        place = device.place if device else HOST
        self._described = [Described(0, tuple(shape), *DTYPES[of], place) for of in (dtype, output_dtype, dtype)]
        self._x, self._u, self._following = (each.tensor for each in self._described)
        self._tensors = ctypes.byref(self._x), ctypes.byref(self._u), ctypes.byref(self._following)
        self._layout = device, shape, dtype, output_dtype

    def __reduce__(self) -> tuple[Any, ...]:
        # A sample that is copied or stored leaves its history behind.
        return type(None), ()

    def _release(self, free: Any = lib.bespoke_sampler_free) -> None:
        if handle := getattr(self, "_handle", None):
            self._handle = None
            free(handle)

    __del__ = _release
