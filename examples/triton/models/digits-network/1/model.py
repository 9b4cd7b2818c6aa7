"""The digits' network as a model of its own: what a Python model of any framework does here.

It runs the TorchScript weights through libbespoke (BESPOKE_LIBRARY names it), so that the server's Python
needs no torch.
"""

import ctypes
import json
import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class Condition(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("batch", ctypes.c_uint32),
                ("classes", ctypes.c_void_p), ("guidance_scale", ctypes.c_void_p)]  # fmt: skip


def dl(array):
    return DLTensor(array.ctypes.data, 1, 0, array.ndim, 2, 32, 1, (ctypes.c_int64 * array.ndim)(*array.shape), None, 0)


class Network:
    """A card's velocity, u_t(x)."""

    def __init__(self, card):
        self.library = ctypes.CDLL(os.environ["BESPOKE_LIBRARY"])
        self.library.bespoke_last_error_message.restype = ctypes.c_char_p
        self.model = ctypes.c_void_p()
        self.check(self.library.bespoke_model_open(str(card).encode(), b"cpu", ctypes.byref(self.model)))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.library.bespoke_last_error_message().decode())

    def __call__(self, t, x, classes):
        t, x, classes = (np.ascontiguousarray(array) for array in (t, x, classes))
        u = np.empty_like(x)
        condition = Condition(ctypes.sizeof(Condition), len(x), classes.ctypes.data, None)
        tensors = [ctypes.byref(dl(array)) for array in (t, x, u)]
        self.check(self.library.bespoke_model_velocity(self.model, ctypes.byref(condition), *tensors))
        return u


class TritonPythonModel:
    def initialize(self, args):
        card = json.loads(args["model_config"])["parameters"]["card"]["string_value"]
        self.network = Network(Path(args["model_repository"]) / args["model_version"] / card)

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        x, t, classes = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("X", "T", "CLASS"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("U", self.network(t[:, 0], x, classes[:, 0]))])
