"""Euler steps, guided up to the time .7, for one request after the other."""

import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as utils

GUIDED_UNTIL = 0.7


class TritonPythonModel:
    def initialize(self, arguments):
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        sys.path[:0] = [str(folder), *(folder / "packages.txt").read_text().split("\n")]
        from graphs import session

        self.network = session(folder / "velocity.onnx")

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        solver = given["SOLVER"][0, 0].decode()
        name, _, steps = solver.partition("@")
        if name != "euler" or not steps.isdecimal() or not 1 <= int(steps) <= 1000:
            wrong = f"SOLVER is {solver}, expected euler@1 to euler@1000"
            return utils.InferenceResponse(error=utils.TritonError(wrong, utils.TritonError.INVALID_ARG))
        scale = given["GUIDANCE_SCALE"][0, 0]
        if not np.isfinite(scale):
            wrong = f"GUIDANCE_SCALE is {scale}, expected a finite number"
            return utils.InferenceResponse(error=utils.TritonError(wrong, utils.TritonError.INVALID_ARG))
        x = self._solved(given["NOISE"], (given["text_condition"], given["speech_condition"]), scale, int(steps))
        return utils.InferenceResponse([utils.Tensor("SAMPLE", x)])

    def _solved(self, x, conditions, scale, steps):
        for step in range(steps):
            t = step / steps
            u = self._guided(x, t, conditions, scale) if t < GUIDED_UNTIL and scale != 1 else self._velocity(x, t, *conditions)
            x = x + u / np.float32(steps)
        return x

    def _guided(self, x, t, conditions, scale):
        twice = [np.concatenate([np.zeros_like(one), one]) for one in conditions]
        null, u = np.split(self._velocity(np.concatenate([x, x]), t, *twice), 2)
        return null + scale * (u - null)

    def _velocity(self, x, t, text, speech):
        time = np.full(len(x), t, np.float32)
        return self.network.run(None, {"x": x, "t": time, "text_condition": text, "speech_condition": speech})[0]
