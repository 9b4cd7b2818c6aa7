"""Griffin and Lim's method, a graph of the voice."""

import sys
from pathlib import Path

import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, arguments):
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        sys.path[:0] = [str(folder), *(folder / "packages.txt").read_text().split("\n")]
        from graphs import session

        self.vocoder = session(folder / "vocoder.onnx")

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        features = given["SAMPLE"][:, given["GIVEN"][0, 0] :]
        [samples] = self.vocoder.run(None, {"features": features})
        return utils.InferenceResponse([utils.Tensor("AUDIO", samples), utils.Tensor("FEATURES", features)])
