"""The C ABI of libbespoke (``include/bespoke.h``) by ctypes, and its statuses as exceptions."""

from __future__ import annotations

import ctypes
import json
import math
import os
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from .errors import BespokeError, FormatError, InvalidArgumentError, NonFiniteError

CPU = 1
INT, FLOAT, BFLOAT, BOOL = 0, 2, 4, 6
REGISTER_NONE = 0xFFFFFFFF

_EXCEPTIONS = {1: InvalidArgumentError, 2: FormatError, 5: NonFiniteError}


class DLDevice(ctypes.Structure):
    _fields_ = [("device_type", c_int32), ("device_id", c_int32)]


class DLDataType(ctypes.Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device", DLDevice),
        ("ndim", c_int32),
        ("dtype", DLDataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _Sized(ctypes.Structure):
    """A struct that begins with its own size."""

    def __init__(self, **members: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **members)


class DeviceTerm(ctypes.Structure):
    _fields_ = [("numbers", c_void_p), ("coefficient", c_double), ("dtype", DLDataType), ("reserved", c_uint32)]


class DeviceSum(ctypes.Structure):
    _fields_ = [
        ("out", c_void_p),
        ("dtype", DLDataType),
        ("first_term", c_uint32),
        ("term_count", c_uint32),
        ("reserved", c_uint32),
    ]


class DevicePart(ctypes.Structure):
    _fields_ = [("count", c_uint64), ("first_sum", c_uint32), ("sum_count", c_uint32)]


class DeviceCombination(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("part_count", c_uint32),
        ("sum_count", c_uint32),
        ("term_count", c_uint32),
        ("parts", POINTER(DevicePart)),
        ("sums", POINTER(DeviceSum)),
        ("terms", POINTER(DeviceTerm)),
    ]


ALLOCATE = ctypes.CFUNCTYPE(c_int32, c_void_p, c_uint64, POINTER(c_void_p))
RELEASE = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
COMBINE = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(DeviceCombination))
COPY = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_uint64)
FINITE = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, DLDataType, c_uint64, c_uint64, POINTER(c_uint8))


class DeviceOps(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("device", DLDevice),
        ("context", c_void_p),
        ("allocate", ALLOCATE),
        ("release", RELEASE),
        ("combine", COMBINE),
        ("copy", COPY),
        ("finite", FINITE),
    ]


class SamplerOptions(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("threads", c_uint32),
        ("device_ops", POINTER(DeviceOps)),
        ("stream", c_void_p),
    ]


class Row(_Sized):
    _fields_ = [("struct_size", c_uint32), ("evaluations", c_uint32), ("nfe", c_uint32), ("failed", c_uint32)]


class Combination(ctypes.Structure):
    _fields_ = [
        ("target", c_uint32),
        ("count", c_uint32),
        ("velocity", c_double),
        ("registers", POINTER(c_uint32)),
        ("coefficients", POINTER(c_double)),
    ]


class Stage(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("ends_step", c_uint32),
        ("self_contained", c_uint32),
        ("reserved", c_uint32),
        ("t", c_double),
        ("next", Combination),
        ("kept", Combination),
    ]


class ThetaProperties(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("steps", c_uint32),
        ("nfe", c_uint32),
        ("kept_registers", c_uint32),
        ("family", c_char_p),
        ("model", c_char_p),
        ("training", c_char_p),
        ("document", c_char_p),
        ("bytes", c_uint64),
    ]


class VelocityScalars(ctypes.Structure):
    _fields_ = [(name, c_double) for name in ("t", "alpha", "sigma", "x", "output", "x_dot", "output_dot")]


class TrainProgress(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("validated", c_uint32),
        ("iteration", c_uint64),
        ("iterations", c_uint64),
        ("loss", c_double),
        ("validation_rmse", c_double),
        ("validation_psnr", c_double),
        ("best_rmse", c_double),
        ("best_psnr", c_double),
        ("forward", c_uint64),
        ("backward", c_uint64),
    ]


Tensor = POINTER(DLTensor)
VELOCITY = ctypes.CFUNCTYPE(c_int32, c_void_p, Tensor, Tensor, Tensor)
PROGRESS = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(TrainProgress))


class Input(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("tensor", Tensor)]


class Call(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("input_count", c_uint32),
        ("time", Tensor),
        ("x", Tensor),
        ("inputs", POINTER(Input)),
        ("output", Tensor),
        ("cotangent", Tensor),
        ("by_x", Tensor),
        ("by_t", Tensor),
    ]


CALL = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(Call))


class TrainCallbacks(_Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("user_data", c_void_p),
        ("progress", PROGRESS),
        ("velocity", CALL),
        ("vjp", CALL),
    ]


def _open() -> ctypes.CDLL:
    """The library inside this package, or the one that BESPOKE_LIBRARY names."""
    path = os.environ.get("BESPOKE_LIBRARY") or str(Path(__file__).with_name("libbespoke.so"))
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"libbespoke cannot be loaded: {error}") from error


lib = _open()

_HANDLE, _OUT = c_void_p, POINTER(c_void_p)
_SIGNATURES = {
    "load_theta": [c_char_p, _OUT],
    "theta_parse": [c_char_p, _OUT],
    "theta_save": [_HANDLE, c_char_p],
    "theta_compile": [_HANDLE, _OUT],
    "theta_info": [_HANDLE, POINTER(ThetaProperties)],
    "theta_stage": [_HANDLE, c_uint32, POINTER(Stage)],
    "theta_solver": [c_char_p, c_uint32, c_char_p, _OUT],
    "theta_for_output": [_HANDLE, c_char_p, c_char_p, _OUT],
    "output_velocity": [c_char_p, c_char_p, c_uint32, POINTER(c_double), POINTER(VelocityScalars)],
    "ladder_load": [c_char_p, _OUT],
    "ladder_theta": [_HANDLE, c_uint32, _OUT],
    "sampler_new": [_HANDLE, POINTER(SamplerOptions), _OUT],
    "sampler_start": [_HANDLE, Tensor],
    "sampler_query": [_HANDLE, POINTER(Tensor), POINTER(Tensor)],
    "sampler_update": [_HANDLE, Tensor],
    "sampler_advance": [_HANDLE, c_uint32, Tensor, Tensor, Tensor],
    "sampler_finish": [_HANDLE, Tensor],
    "sampler_join": [_HANDLE, _HANDLE, Tensor],
    "sampler_leave": [_HANDLE, c_uint32, Tensor],
    "sampler_row": [_HANDLE, c_uint32, POINTER(Row)],
    "sampler_batch": [_HANDLE, POINTER(c_uint32)],
    "sampler_finite": [_HANDLE, c_uint32, POINTER(c_uint8)],
    "step": [_HANDLE, _HANDLE, c_uint32, Tensor, VELOCITY, c_void_p],
    "train": [c_char_p, POINTER(TrainCallbacks), _OUT],
}
for _name, _arguments in _SIGNATURES.items():
    _function = getattr(lib, f"bespoke_{_name}")
    _function.argtypes, _function.restype = _arguments, c_int32
for _name in ("theta_free", "sampler_free", "ladder_free"):
    _function = getattr(lib, f"bespoke_{_name}")
    _function.argtypes, _function.restype = [_HANDLE], None
lib.bespoke_last_error_message.restype = c_char_p
lib.bespoke_status_name.argtypes, lib.bespoke_status_name.restype = [c_int32], c_char_p
lib.bespoke_version.restype = c_char_p

#: `bespoke_sampler_advance` of a ``c_void_p``, an ``int`` and three ``ctypes.byref``: nothing is converted, which takes
#: longer than the update of a small sample.
advance = lib["bespoke_sampler_advance"]
advance.restype = c_int32


def check(status: int) -> None:
    """Raises what a status other than 0 says."""
    if status:
        message = lib.bespoke_last_error_message().decode(errors="replace")
        name = lib.bespoke_status_name(status).decode()
        raise _EXCEPTIONS.get(status, BespokeError)(message, name)


def make(function: Any, *arguments: Any) -> int:
    """Calls a function that makes an object, and gives its address."""
    out = c_void_p()
    check(function(*arguments, ctypes.byref(out)))
    assert out.value is not None
    return out.value


def path_bytes(path: str | os.PathLike[str]) -> bytes:
    """A path as the library takes it."""
    return os.fsencode(path)


def json_bytes(document: Any, name: str = "") -> bytes:
    """A document as the library takes it; ``name`` is what messages call it."""
    try:
        return json.dumps(document, allow_nan=False, default=os.fspath).encode()
    except ValueError:
        for path, value in _numbers(document, name):
            if not math.isfinite(value):
                raise ValueError(f"{path} is {value}, expected a finite number") from None
        raise


def _numbers(value: Any, path: str) -> Any:
    """All floats of a document, each with its path."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _numbers(inner, f"{path}[{i}]")
