"""Requests to the backend's models, over HTTP and gRPC alike."""

from concurrent.futures import Future

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

DTYPES = {
    "NOISE": ("FP32", np.float32), "SEED": ("INT64", np.int64), "COUNT": ("INT64", np.int64),
    "CLASS": ("INT64", np.int64), "GUIDANCE_SCALE": ("FP32", np.float32), "NFE": ("INT64", np.int64),
    "SOLVER": ("BYTES", np.object_),
}  # fmt: skip


def tensors(protocol, **values):
    """InferInputs: scalars and lists become columns [rows, 1], noise is taken as it is."""
    module = {"http": http, "grpc": grpc}[protocol]
    inputs = []
    for name, value in values.items():
        dtype, numpy_dtype = DTYPES[name]
        if name == "NOISE":
            array = np.asarray(value, numpy_dtype)
        else:
            array = np.asarray(value, numpy_dtype).reshape(-1, 1)
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

    def infer(self, model, **values):
        """(samples, response parameters)"""
        result = self.client.infer(model, tensors(self.protocol, **values))
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
