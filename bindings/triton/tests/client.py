"""Requests to the backend's models, over HTTP and gRPC alike."""

from concurrent.futures import Future

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import np_to_triton_dtype

DTYPES = {
    "NOISE": ("FP32", np.float32), "SEED": ("INT64", np.int64), "COUNT": ("INT64", np.int64),
    "CLASS": ("INT64", np.int64), "GUIDANCE_SCALE": ("FP32", np.float32), "NFE": ("INT64", np.int64),
    "SOLVER": ("BYTES", np.object_),
}  # fmt: skip


def tensors(protocol, **values):
    """InferInputs: scalars and lists of the backend's own become columns [rows, 1]; noise and a network's inputs are
    taken as they are."""
    module = {"http": http, "grpc": grpc}[protocol]
    inputs = []
    for name, value in values.items():
        if name not in DTYPES:
            array = np.ascontiguousarray(value)
            dtype = np_to_triton_dtype(array.dtype)
        else:
            dtype, numpy_dtype = DTYPES[name]
            array = np.asarray(value, numpy_dtype)
            if name != "NOISE":
                array = array.reshape(-1, 1)
        tensor = module.InferInput(name, array.shape, dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def parameters(result):
    """Response parameters as a dict."""
    response = result.get_response()
    if isinstance(response, dict):
        return response.get("parameters", {})
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in response.parameters.items()}


class Client:
    """One connection by one protocol."""

    def __init__(self, server, protocol="http", concurrency=1):
        self.protocol = protocol
        self.client = server.http(concurrency) if protocol == "http" else server.grpc()

    def infer(self, model, *, asked=None, **values):
        """(samples, response parameters); `asked` are parameters of the request."""
        result = self.client.infer(model, tensors(self.protocol, **values), parameters=asked)
        return result.as_numpy("SAMPLE"), parameters(result)

    def start(self, model, **values):
        """Begins a request; calling what is returned waits for (samples, response parameters)."""
        if self.protocol == "http":
            pending = self.client.async_infer(model, tensors("http", **values))

            def wait():
                result = pending.get_result()
                return result.as_numpy("SAMPLE"), parameters(result)

            return wait
        future = Future()

        def done(result, error):
            future.set_exception(error) if error is not None else future.set_result(result)

        context = self.client.async_infer(model, tensors("grpc", **values), done)

        def wait(timeout=120):
            result = future.result(timeout)
            return result.as_numpy("SAMPLE"), parameters(result)

        wait.cancel = context.cancel
        return wait
