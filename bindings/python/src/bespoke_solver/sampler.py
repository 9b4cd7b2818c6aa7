"""Samplers: batches on their way through a solver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _native
from ._arrays import Borrowed, Maker, device_of, empty, maker_like, view, write
from ._callbacks import Raised
from ._native import lib
from .theta import Theta

if TYPE_CHECKING:
    from .device import TorchDevice

Array = Any
"""An array in host memory with ``__dlpack__`` (numpy, torch, jax, ...), or a torch tensor on any device: float32,
float64, float16 or bfloat16."""

Velocity = Callable[[Array, Array], Array]
"""``u = velocity(t, x)``: t ``[batch]`` in [0, 1] from noise to data, float32; x and u ``[batch, ...]``."""


@dataclass(frozen=True)
class Row:
    """Where one sample of a batch stands.

    Attributes:
        evaluations: Evaluations done; at ``nfe`` the sample is x(1).
        nfe: Evaluations of its theta.
        failed: Whether its last velocity held a NaN or an infinity; it then must leave.
    """

    evaluations: int
    nfe: int
    failed: bool


class Sampler:
    """Scratch of one batch. One thread at a time; native work runs without the GIL.

    The whole solve is ``sampler.sample(x0, velocity)``. A program with a loop of its own does::

        sampler.start(x0)
        while (asked := sampler.query()) is not None:
            t, x = asked
            sampler.update(model(t, x))
        x1 = sampler.finish()

    Samples may join and leave between an update and the next query.

    Args:
        theta: The solver.
        threads: Threads that an update may use, the caller's included.
    """

    def __init__(self, theta: Theta, *, threads: int = 1) -> None:
        self._theta, self._threads = theta, threads
        #: Where the samples are, if that is no memory that the library reads.
        self._device: TorchDevice | None = None
        self._handle = self._new()
        self._make: Maker | None = None
        self._like: tuple[tuple[int, ...], int, int] = ((), 0, 0)

    def start(self, x0: Array) -> None:
        """Begins a solve of the batch ``x0``, ``[batch, ...]``: noise of standard deviation 1 (for ``edm``, sigma_max)."""
        self._settle(x0)
        with self._lent("x0", x0) as x:
            self._check(lib.bespoke_sampler_start(self._handle, x))
            self._remember(x0, x)

    def _new(self) -> int:
        if self._device is not None:
            return self._device.sampler(self._theta._handle, self._threads)
        options = _native.SamplerOptions(threads=self._threads)
        return _native.make(lib.bespoke_sampler_new, self._theta._handle, options)

    def _settle(self, array: Array) -> None:
        """Makes the sampler anew where ``array`` is on another device than the samples so far."""
        place = device_of(array)
        if place == (self._device and self._device.device):
            return
        self._free()
        self._device = None
        if place is not None:
            from .device import TorchDevice

            self._device = TorchDevice(place)
        self._handle = self._new()

    @contextmanager
    def _lent(self, name: str, array: Array) -> Iterator[Any]:
        """``array``, which messages call ``name``, as the library takes it, meanwhile."""
        if self._device is None:
            yield Borrowed(name, array).tensor
        else:
            with self._device.lent(name, array) as tensor:
                yield tensor

    def _check(self, status: int) -> None:
        if self._device is None:
            _native.check(status)
        else:
            self._device.check(status)

    def _remember(self, array: Array, tensor: Any) -> None:
        self._make = maker_like(array)
        self._like = (tuple(tensor.shape[1 : tensor.ndim]), tensor.dtype.code, tensor.dtype.bits)

    def query(self) -> tuple[Array, Array] | None:
        """Times, float32 ``[batch]``, and states, ``[batch, ...]``, of the next evaluation; None when all are done.

        Both are the sampler's memory, not to be written and valid until its next call, in arrays of the library
        that x0 was of.
        """
        t, x = _native.Tensor(), _native.Tensor()
        self._check(lib.bespoke_sampler_query(self._handle, t, x))
        if not t:
            return None
        if self._device is not None:
            return self._device.view(t.contents), self._device.view(x.contents)
        make = self._made()
        return make(*view(t.contents, self)), make(*view(x.contents, self))

    def update(self, u: Array) -> None:
        """Takes in the velocity, ``[batch, ...]``, at what was asked; of any strides and float dtype, read in place.

        Raises:
            NonFiniteError: The velocity of some sample, in host memory, held a NaN or an infinity; the others have
                advanced.
        """
        with self._lent("u", u) as tensor:
            self._check(lib.bespoke_sampler_update(self._handle, tensor))

    def finish(self) -> Array:
        """x(1) of the whole batch, ``[batch, ...]``, in memory of its own. Every sample must be done."""
        return self._into_room(len(self), lambda x: lib.bespoke_sampler_finish(self._handle, x))

    def join(self, x0: Array, theta: Theta | None = None) -> None:
        """Adds the samples ``x0``, ``[count, ...]``, behind the present ones, at the start of ``theta`` or of its own."""
        if len(self) == 0:
            self._settle(x0)
        handle = theta._handle if theta is not None else None
        with self._lent("x0", x0) as x:
            self._check(lib.bespoke_sampler_join(self._handle, handle, x))
            self._remember(x0, x)

    def leave(self, row: int) -> Array:
        """Takes sample ``row`` out, done or not, and gives its state, ``[1, ...]``; the last one takes its place."""
        return self._into_room(1, lambda x: lib.bespoke_sampler_leave(self._handle, row, x))

    def row(self, row: int) -> Row:
        """Where sample ``row`` stands."""
        found = _native.Row()
        _native.check(lib.bespoke_sampler_row(self._handle, row, found))
        return Row(found.evaluations, found.nfe, bool(found.failed))

    def finite(self) -> list[bool]:
        """Of every sample, whether the numbers of its state are all finite.

        Of tensors on a device nobody else asks: no `NonFiniteError` is raised there, and this waits for the device.
        """
        count = len(self)
        answers = (ctypes.c_uint8 * max(count, 1))()
        self._check(lib.bespoke_sampler_finite(self._handle, count, answers))
        return [bool(answer) for answer in answers[:count]]

    def __len__(self) -> int:
        """Number of samples."""
        count = ctypes.c_uint32()
        _native.check(lib.bespoke_sampler_batch(self._handle, count))
        return count.value

    def sample(self, x0: Array, velocity: Velocity) -> Array:
        """The whole solve, from ``x0``, ``[batch, ...]``, to x(1), with a call of ``velocity`` per evaluation."""
        self.start(x0)
        while (asked := self.query()) is not None:
            self.update(velocity(*asked))
        return self.finish()

    def step(self, index: int, x: Array, velocity: Velocity) -> None:
        """Takes ``x`` one step further, in place: step ``index``, 0 to ``theta.steps - 1``.

        A step of an ``rk1`` or ``rk2`` theta needs nothing but ``x``; those of ``ns`` build on one another, so call
        them in order. What ``velocity`` raises, and any other failure, leaves ``x`` as it was.
        """
        self._settle(x)
        if self._device is not None:
            return self._step_on_device(index, x, velocity)
        borrowed, make, raised = Borrowed("x", x, writable=True), maker_like(x), Raised()

        def evaluate(_: Any, t: Any, state: Any, u: Any) -> None:
            times, states = make(*view(t.contents)), make(*view(state.contents))
            write("the velocity", u.contents, velocity(times, states))

        callback = _native.VELOCITY(raised.guard(evaluate))
        arguments = self._theta._handle, self._handle, index, borrowed.tensor, callback, None
        with raised.signals():
            status = lib.bespoke_step(*arguments)
        raised.check(status)

    def _made(self) -> Maker:
        if self._make is None:
            raise _native.BespokeError("the sampler holds no samples: start or join comes first", "BESPOKE_ERROR_STATE")
        return self._make

    def _step_on_device(self, index: int, x: Any, velocity: Velocity) -> None:
        raised, device = Raised(), self._device
        assert device is not None

        def evaluate(_: Any, t: Any, state: Any, u: Any) -> None:
            device.write("the velocity", u.contents, velocity(device.view(t.contents), device.view(state.contents)))

        callback = _native.VELOCITY(raised.guard(evaluate))
        with device.lent("x", x) as tensor:
            with raised.signals():
                status = lib.bespoke_step(self._theta._handle, self._handle, index, tensor, callback, None)
            if raised.exception is None:
                device.check(status)
            raised.check(status)
            x.copy_(device.view(tensor))

    def _into_room(self, count: int, write: Any) -> Array:
        """New memory for ``count`` samples, that ``write`` writes."""
        make = self._made()
        (shape, code, bits), count = self._like, max(count, 1)
        if self._device is None:
            memory, described = empty((count, *shape), code, bits)
            _native.check(write(described.tensor))
            return make(memory, code == _native.BFLOAT)
        return self._device.written((count, *shape), code, bits, write)

    def _free(self, free: Any = lib.bespoke_sampler_free) -> None:
        if handle := getattr(self, "_handle", None):
            self._handle = 0
            free(handle)

    __del__ = _free


def sample(theta: Theta, x0: Array, velocity: Velocity, *, threads: int = 1) -> Array:
    """The whole solve of a batch, see `Sampler.sample`."""
    return Sampler(theta, threads=threads).sample(x0, velocity)


def step(theta: Theta, index: int, x: Array, velocity: Velocity) -> None:
    """One step of an ``rk1`` or ``rk2`` theta, in place, see `Sampler.step`."""
    Sampler(theta).step(index, x, velocity)


__all__ = ["Array", "Row", "Sampler", "Velocity", "sample", "step"]
