"""Samplers whose samples are torch's, on whatever device: the library's `device_ops` with operations that call torch.

What the library takes for addresses are numbers given out here, each for a tensor that it never touches. A sum replaces
the tensor of its array by another one, so that gradients are carried along.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from . import _native
from ._arrays import Described
from ._callbacks import Raised
from ._native import BFLOAT, FLOAT, DLDataType, DLDevice, DLTensor, lib

#: As DLPack writes torch's dtypes.
DTYPES = {
    torch.float32: (FLOAT, 32),
    torch.float64: (FLOAT, 64),
    torch.float16: (FLOAT, 16),
    torch.bfloat16: (BFLOAT, 16),
}
#: torch's dtypes by what DLPack writes.
TORCH_DTYPES = {of: dtype for dtype, of in DTYPES.items()}
#: DLPack's kDLExtDev.
_EXTENSION = 12
#: `DeviceCombination`, `DevicePart`, `DeviceSum` and `DeviceTerm`: what a launch has is read at once, since an attribute of
#: each costs as much as a sum.
_LAUNCH = struct.Struct("=IIIIQQQ")
_PART, _SUM, _TERM = struct.Struct("=QII"), struct.Struct("=QBBHIII"), struct.Struct("=QdBBHI")
#: Arrays begin at multiples of this, and do not meet.
_APART = 1 << 12


def _dtype(dtype: DLDataType) -> torch.dtype:
    return TORCH_DTYPES[dtype.code, dtype.bits]


def _all(layout: struct.Struct, address: int, count: int) -> list[tuple[Any, ...]]:
    """The ``count`` structs at ``address``."""
    return list(layout.iter_unpack(ctypes.string_at(address, count * layout.size)))


class _Array:
    """An array of the library's, or a tensor lent to it. Of the former there may be no numbers yet."""

    def __init__(self, size: int, numbers: torch.Tensor | None = None) -> None:
        self.size, self.numbers = size, numbers


class TorchDevice:
    """Tensors of one torch device as memory of the library's.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        #: What the library calls it.
        self.place = DLDevice(_EXTENSION, 0)
        self.raised = Raised()
        self._arrays: dict[int, _Array] = {}
        self._starts: list[int] = []
        self._next = _APART
        guard = self.raised.guard
        self.ops = _native.DeviceOps(
            device=self.place,
            allocate=_native.ALLOCATE(guard(self._allocate)),
            release=_native.RELEASE(guard(self._release)),
            combine=_native.COMBINE(guard(self._combine)),
            copy=_native.COPY(guard(self._copy)),
            finite=_native.FINITE(guard(self._finite)),
        )

    def sampler(self, theta: int, threads: int = 0) -> int:
        """A sampler of the theta with this handle, for tensors that are `lend`\\ed."""
        options = _native.SamplerOptions(threads=threads, device_ops=ctypes.pointer(self.ops))
        return _native.make(lib.bespoke_sampler_new, theta, options)

    def lend(self, tensor: torch.Tensor) -> int:
        """An address of the numbers of ``tensor``, until `take`."""
        return self._place(tensor.numel() * tensor.element_size(), tensor.reshape(-1))

    def take(self, address: int) -> torch.Tensor | None:
        """Takes back what was lent, or room that was given: the numbers that are there now, if any were written."""
        self._starts.remove(address)
        return self._arrays.pop(address).numbers

    def room(self, size: int) -> int:
        """An address where ``size`` bytes may be written."""
        return self._place(size, None)

    @contextmanager
    def lent(self, name: str, tensor: torch.Tensor) -> Iterator[DLTensor]:
        """``tensor``, which messages call ``name``, as the library takes it, meanwhile."""
        if tensor.device != self.device:
            raise ValueError(f"{name} is on {tensor.device}, expected {self.device}, the sampler's")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} is of dtype {tensor.dtype}, expected float32, float64, float16 or bfloat16")
        described = Described(self.lend(tensor.detach()), tuple(tensor.shape), *DTYPES[tensor.dtype], self.place)
        try:
            yield described.tensor
        finally:
            self.take(described.tensor.data)

    def written(self, shape: tuple[int, ...], code: int, bits: int, write: Callable[[DLTensor], int]) -> torch.Tensor:
        """A new tensor, that ``write``, a call of the library's, writes."""
        described = Described(self.room(bits // 8 * math.prod(shape)), shape, code, bits, self.place)
        try:
            self.check(write(described.tensor))
        finally:
            found = self.take(described.tensor.data)
        assert found is not None
        return found.reshape(shape)

    def write(self, name: str, target: DLTensor, values: torch.Tensor) -> None:
        """Puts ``values`` into a tensor of the library's."""
        shape = tuple(target.shape[: target.ndim])
        if tuple(values.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, expected {shape}")
        self._write(target.data, values.detach().to(_dtype(target.dtype), copy=True).reshape(-1), math.prod(shape) * target.dtype.bits // 8)

    def view(self, tensor: DLTensor) -> torch.Tensor:
        """What a tensor of the library's holds; not to be written."""
        shape = tuple(tensor.shape[: tensor.ndim])
        return self._read(tensor.data, math.prod(shape), _dtype(tensor.dtype)).reshape(shape)

    def check(self, status: int) -> None:
        """Raises what an operation raised, or what the status says."""
        if status or self.raised.exception is not None:
            raised, self.raised.exception = self.raised.exception, None
            if raised is not None:
                raise raised
            _native.check(status)

    def _place(self, size: int, numbers: torch.Tensor | None) -> int:
        address = self._next
        self._next += (size // _APART + 2) * _APART
        self._arrays[address] = _Array(size, numbers)
        self._starts.append(address)  # they only grow
        return address

    def _find(self, address: int) -> tuple[_Array, int]:
        """The array that an address is of, and how many bytes from its start."""
        if (whole := self._arrays.get(address)) is not None:
            return whole, 0
        start = self._starts[bisect.bisect_right(self._starts, address) - 1]
        return self._arrays[start], address - start

    def _read(self, address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        array, offset = self._find(address)
        if array.numbers is None:
            # A register that nothing was kept in yet moves with its sample.
            array.numbers = torch.zeros(array.size // dtype.itemsize, dtype=dtype, device=self.device)
        numbers = array.numbers
        if offset == 0 and count * dtype.itemsize == array.size:
            return numbers
        first = offset // dtype.itemsize
        return numbers[first : first + count]

    def _write(self, address: int, values: torch.Tensor, size: int) -> None:
        """Puts ``values``, ``size`` bytes of the array's dtype, where they belong: a whole array is replaced."""
        array, offset = self._find(address)
        if offset == 0 and size == array.size:
            array.numbers = values
            return
        size = values.element_size()
        if array.numbers is None:
            array.numbers = torch.empty(array.size // size, dtype=values.dtype, device=self.device)
        first = offset // size
        array.numbers[first : first + values.numel()] = values

    def _allocate(self, _: Any, size: int, memory: Any) -> None:
        memory[0] = self.room(size)

    def _release(self, _: Any, address: int) -> None:
        del self._arrays[address]
        self._starts.remove(address)

    def _combine(self, _: Any, asked: Any) -> None:
        _, part_count, sum_count, term_count, part, total, term = _LAUNCH.unpack(ctypes.string_at(asked, _LAUNCH.size))
        sums, terms = _all(_SUM, total, sum_count), _all(_TERM, term, term_count)
        written: list[tuple[int, torch.Tensor, int]] = []
        for count, first, number in _all(_PART, part, part_count):
            made: dict[int, torch.Tensor] = {}
            for out, code, bits, _, first_term, count_of_terms, _ in sums[first : first + number]:
                if first_term in made:  # the same sum in another place
                    written.append((out, made[first_term].clone(), count * bits // 8))
                    continue
                own = terms[first_term : first_term + count_of_terms]
                made[first_term] = self._sum(own, count, TORCH_DTYPES[code, bits])
                written.append((out, made[first_term], count * bits // 8))
        for address, values, size in written:
            self._write(address, values, size)

    def _sum(self, terms: Sequence[tuple[Any, ...]], count: int, dtype: torch.dtype) -> torch.Tensor:
        wide = dtype if dtype == torch.float64 else torch.float32
        total: torch.Tensor | None = None
        for numbers, c, code, bits, _, _ in terms:
            if not numbers:
                total = torch.full((count,), c, dtype=wide, device=self.device) if total is None else total + c
                continue
            values = self._read(numbers, count, TORCH_DTYPES[code, bits])
            if values.dtype != wide:
                values = values.to(wide)
            if total is not None:
                total = total.add(values, alpha=c)
            elif c == 1.0 and len(terms) > 1:
                total = values  # what is added makes a new one
            else:
                total = values * c
        assert total is not None
        return total if wide == dtype else total.to(dtype)

    def _copy(self, _: Any, to: int, source: int, size: int) -> None:
        array, offset = self._find(source)
        numbers = array.numbers
        if numbers is None:
            return
        width = numbers.element_size()
        first, count = offset // width, size // width
        whole = first == 0 and count == numbers.numel()
        # A copy: a program may write into what it gave, or was given.
        self._write(to, (numbers if whole else numbers[first : first + count]).clone(), size)

    def _finite(self, _: Any, address: int, dtype: DLDataType, rows: int, elements: int, finite: Any) -> None:
        numbers = self._read(address, rows * elements, _dtype(dtype))
        for row, answer in enumerate(numbers.reshape(rows, elements).isfinite().all(1).tolist()):
            finite[row] = int(answer)


__all__ = ["DTYPES", "TORCH_DTYPES", "TorchDevice"]
