"""What is to be said as text and speech of each frame, and the noise that the solve begins with."""

import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as utils

#: Characters of a text; the flow's attention grows with their square.
MOST = 400


class TritonPythonModel:
    def initialize(self, arguments):
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        # Where ONNX Runtime's wheel is installed, as whoever laid out the repository wrote it down.
        sys.path[:0] = [str(folder), *(folder / "packages.txt").read_text().split("\n")]
        from graphs import Voice

        self.voice = Voice(folder / "voice")

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = lambda name: utils.get_input_tensor_by_name(request, name).as_numpy()[0, 0]
        try:
            text, prompt = given("TEXT").decode("utf-8"), int(given("PROMPT"))
            if not 0 <= prompt < len(self.voice.prompts):
                raise ValueError(f"PROMPT is {prompt}, expected 0 to {len(self.voice.prompts) - 1}")
            if len(text) > MOST:
                raise ValueError(f"TEXT has {len(text)} characters, expected {MOST} at most")
            said, speech, known = self.voice.conditions(text, prompt)
        except UnicodeDecodeError as wrong:
            return utils.InferenceResponse(error=utils.TritonError(f"TEXT is no UTF-8: {wrong}", utils.TritonError.INVALID_ARG))
        except ValueError as wrong:
            return utils.InferenceResponse(error=utils.TritonError(str(wrong), utils.TritonError.INVALID_ARG))
        noise = np.random.default_rng(int(given("SEED")) % 2**63).standard_normal(speech.shape, np.float32)
        made = {"text_condition": said, "speech_condition": speech, "NOISE": noise, "GIVEN": np.array([known])}
        return utils.InferenceResponse([utils.Tensor(name, array[None]) for name, array in made.items()])
