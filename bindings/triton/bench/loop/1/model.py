"""Midpoint's method as a loop in Python: what the backend replaces."""

import numpy as np
import triton_python_backend_utils as pb_utils


def velocity(x, t, classes):
    inputs = [
        pb_utils.Tensor("X", x),
        pb_utils.Tensor("T", np.full((len(x), 1), t, np.float32)),
        pb_utils.Tensor("CLASS", classes),
    ]
    request = pb_utils.InferenceRequest(model_name="digits-network", requested_output_names=["U"], inputs=inputs)
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return pb_utils.get_output_tensor_by_name(response, "U").as_numpy()


class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        x, classes, nfe = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("NOISE", "CLASS", "NFE"))
        steps = int(nfe[0, 0]) // 2
        h = np.float32(1 / steps)
        for i in range(steps):
            half = x + h / 2 * velocity(x, i * h, classes)
            x = x + h * velocity(half, (i + 0.5) * h, classes)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SAMPLE", x)])
