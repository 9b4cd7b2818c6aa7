"""Arrays of any library in, by DLPack; memory of libbespoke out, as arrays of the caller's library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_void_p, py_object
from typing import Any

import numpy as np

from ._native import BFLOAT, CPU, FLOAT, INT, DLDevice, DLTensor
from ._native import DLDataType as Dtype

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes, _capsule_pointer.restype = [py_object, c_char_p], c_void_p
_capsule_valid = ctypes.pythonapi.PyCapsule_IsValid
_capsule_valid.argtypes, _capsule_valid.restype = [py_object, c_char_p], c_int

# Where the DLTensor lies in a DLManagedTensorVersioned (after version, manager_ctx, deleter, flags), and the flags.
_VERSIONED_TENSOR, _VERSIONED_FLAGS, _READ_ONLY = 32, 24, 1

_NUMPY = {(FLOAT, 16): np.float16, (FLOAT, 32): np.float32, (FLOAT, 64): np.float64, (INT, 64): np.int64}
_NAMES = {"float16": (FLOAT, 16), "float32": (FLOAT, 32), "float64": (FLOAT, 64), "bfloat16": (BFLOAT, 16)}

#: Makes an array of some library from a numpy array and whether that holds the bits of bfloat16.
Maker = Callable[[np.ndarray, bool], Any]


class Borrowed:
    """A `DLTensor` that describes ``array`` while it or this object lives.

    Args:
        name: What messages call it.
        array: Any object with ``__dlpack__``.
        writable: Whether the library will write to it.
    """

    def __init__(self, name: str, array: Any, writable: bool = False) -> None:
        export = getattr(array, "__dlpack__", None)
        if export is None:
            raise TypeError(f"{name} is {type(array).__name__}, expected an array with __dlpack__")
        if getattr(array, "requires_grad", False) and not writable:
            export = array.detach().__dlpack__
        try:
            capsule = export(max_version=(1, 0))
        except TypeError:  # exporters from before DLPack 1.0
            capsule = export()
        read_only = False
        # The capsule stays unconsumed: it frees what it holds when it goes.
        if _capsule_valid(capsule, b"dltensor_versioned"):
            managed = _capsule_pointer(capsule, b"dltensor_versioned")
            flags = ctypes.c_uint64.from_address(managed + _VERSIONED_FLAGS).value
            read_only, address = bool(flags & _READ_ONLY), managed + _VERSIONED_TENSOR
        else:
            address = _capsule_pointer(capsule, b"dltensor")
        if read_only and writable:
            raise TypeError(f"{name} is read-only, expected an array that may be written")
        self.tensor = DLTensor.from_address(address)
        # A call is given the tensor alone, and then nobody else may hold this object any more.
        self.tensor._owner = capsule

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[: self.tensor.ndim])


class Described:
    """A contiguous `DLTensor` for memory at ``address``, which others keep alive."""

    def __init__(self, address: int, shape: tuple[int, ...], code: int, bits: int) -> None:
        self._sizes = (c_int64 * len(shape))(*shape)
        self.tensor = DLTensor(
            address,
            DLDevice(CPU, 0),
            len(shape),
            Dtype(code, bits, 1),
            ctypes.cast(self._sizes, POINTER(c_int64)),
            None,
            0,
        )


def view(tensor: DLTensor, owner: Any = None) -> tuple[np.ndarray, bool]:
    """The memory of a contiguous tensor of the library's as a numpy array, and whether it is bfloat16 (as uint16).

    ``owner`` stays alive as long as the array.
    """
    dtype = (tensor.dtype.code, tensor.dtype.bits)
    shape = tuple(tensor.shape[: tensor.ndim])
    numpy_dtype = np.dtype(_NUMPY.get(dtype, np.uint16))
    count = int(np.prod(shape))
    memory: Any = (c_char * (count * numpy_dtype.itemsize)).from_address(tensor.data)
    memory._owner = owner
    return np.frombuffer(memory, numpy_dtype).reshape(shape), dtype[0] == BFLOAT


def empty(shape: tuple[int, ...], code: int, bits: int) -> tuple[np.ndarray, Described]:
    """New memory of the caller's, and its description."""
    array = np.empty(shape, _NUMPY.get((code, bits), np.uint16))
    return array, Described(array.ctypes.data, shape, code, bits)


def maker_like(array: Any) -> Maker:
    """Makes arrays of the library that ``array`` is of: torch, or one with the array API (numpy, jax)."""
    if type(array).__module__.partition(".")[0] == "torch":
        return maker("torch")
    if isinstance(array, np.ndarray):
        return maker("numpy")
    namespace = array.__array_namespace__()
    return lambda memory, bfloat: namespace.asarray(_with_bfloat(memory, bfloat))


def maker(library: str) -> Maker:
    """Makes arrays of ``library``: numpy, torch or jax."""
    if library == "numpy":
        return _with_bfloat
    if library == "torch":
        import torch

        def of_torch(memory: np.ndarray, bfloat: bool) -> Any:
            tensor = torch.from_numpy(memory.view(np.int16) if bfloat else memory)
            return tensor.view(torch.bfloat16) if bfloat else tensor

        return of_torch
    if library == "jax":
        import jax.numpy

        return lambda memory, bfloat: jax.numpy.array(_with_bfloat(memory, bfloat))
    raise ValueError(f"library is {library!r}, expected numpy, torch or jax")


def _with_bfloat(memory: np.ndarray, bfloat: bool) -> np.ndarray:
    if not bfloat:
        return memory
    import ml_dtypes  # numpy's own types end at float16; jax brings these

    return memory.view(ml_dtypes.bfloat16)


def write(name: str, target: DLTensor, values: Any) -> None:
    """Copies ``values``, an array of any library and device, into memory of the library's."""
    memory, bfloat = view(target)
    if tuple(values.shape) != memory.shape:
        raise ValueError(f"{name} has shape {tuple(values.shape)}, expected {memory.shape}")
    if type(values).__module__.partition(".")[0] == "torch":
        maker("torch")(memory, bfloat).copy_(values.detach())
    else:
        np.copyto(_with_bfloat(memory, bfloat), np.asarray(values), casting="same_kind")
