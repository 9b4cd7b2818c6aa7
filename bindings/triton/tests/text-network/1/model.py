"""digits-text.onnx, which lies beside this file, by the Python half of ONNX Runtime."""

import sys
from pathlib import Path

import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, arguments):
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        # Where ONNX Runtime's wheel is installed, as the test wrote it down; numpy is the server's own.
        sys.path.append((folder / "packages.txt").read_text())
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / "digits-text.onnx", options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        [u] = self.session.run(None, {"x": given["X"], "t": given["T"][:, 0], "text": given["text"]})
        return utils.InferenceResponse([utils.Tensor("U", u)])
