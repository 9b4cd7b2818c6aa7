"""Arrays of any library in, by DLPack; memory of libbespoke out, as arrays of the caller's library."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Mapping
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_void_p, py_object
from typing import Any

import numpy as np

from ._native import BFLOAT, BOOL, CPU, FLOAT, INT, DLDevice, DLTensor
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


HOST = DLDevice(CPU, 0)


class Described:
    """A contiguous `DLTensor` for memory at ``address``, which others keep alive."""

    def __init__(
        self, address: int, shape: tuple[int, ...], code: int, bits: int, device: DLDevice = HOST
    ) -> None:
        self._sizes = (c_int64 * len(shape))(*shape)
        self.tensor = DLTensor(
            address,
            device,
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
    count = math.prod(shape)
    memory: Any = (c_char * (count * numpy_dtype.itemsize)).from_address(tensor.data)
    memory._owner = owner
    return np.frombuffer(memory, numpy_dtype).reshape(shape), dtype[0] == BFLOAT


def empty(shape: tuple[int, ...], code: int, bits: int) -> tuple[np.ndarray, Described]:
    """New memory of the caller's, and its description."""
    array = np.empty(shape, _NUMPY.get((code, bits), np.uint16))
    return array, Described(array.ctypes.data, shape, code, bits)


def device_of(array: Any) -> Any:
    """The device of a torch tensor that the library cannot read where it is; None for all other arrays."""
    return array.device if type(array).__module__.partition(".")[0] == "torch" and not array.is_cpu else None


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


#: Types of safetensors files, by DLPack's code and bits.
_STORED = {
    (FLOAT, 64): "F64", (FLOAT, 32): "F32", (FLOAT, 16): "F16", (BFLOAT, 16): "BF16",
    (INT, 64): "I64", (INT, 32): "I32", (BOOL, 8): "BOOL",
}  # fmt: skip


def stored(arrays: Mapping[str, Any]) -> bytes:
    """``arrays`` of any library as the content of a safetensors file."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, array in arrays.items():
        borrowed = Borrowed(f"conditions[{name!r}]", array)
        dtype = borrowed.tensor.dtype.code, borrowed.tensor.dtype.bits
        if dtype not in _STORED:
            kinds = ", ".join(_STORED.values())
            raise TypeError(f"conditions[{name!r}] is of dtype {getattr(array, 'dtype', dtype)}, expected one of {kinds}")
        parts.append(_bytes_of(borrowed.tensor))
        header[name] = {
            "dtype": _STORED[dtype], "shape": list(borrowed.shape), "data_offsets": [end, end + len(parts[-1])],
        }  # fmt: skip
        end += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def _bytes_of(tensor: DLTensor) -> bytes:
    """The numbers of a tensor in host memory, of any strides, row after row."""
    if tensor.device.device_type != CPU:
        raise TypeError(f"conditions are on a device of type {tensor.device.device_type}, expected host memory")
    shape, width = tuple(tensor.shape[: tensor.ndim]), tensor.dtype.bits // 8
    if tensor.strides:
        strides = tuple(n * width for n in tensor.strides[: tensor.ndim])
    else:
        strides = tuple(width * int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
    # The first number is not the lowest where a stride is negative.
    ends = [(n - 1) * stride for n, stride in zip(shape, strides)]
    below, above = -sum(end for end in ends if end < 0), sum(end for end in ends if end > 0)
    memory: Any = (c_char * (below + above + width)).from_address(tensor.data + tensor.byte_offset - below)
    return np.ndarray(shape, np.dtype(f"V{width}"), memory, below, strides).tobytes()
