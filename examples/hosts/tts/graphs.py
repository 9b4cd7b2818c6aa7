"""The graphs of a voice by the Python half of ONNX Runtime."""

import wave
from pathlib import Path

import numpy as np
import onnxruntime

TEXT, BANDS = 48, 80


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Voice:
    """Text and prompts as the flow takes them, and its features as sound."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.encoder, self.features, self.vocoder = (session(self.folder / f"{name}.onnx") for name in ("encoder", "features", "vocoder"))
        said = self.encoder.get_modelmeta().custom_metadata_map
        self.alphabet, self.frames_per_token = said["alphabet"], float(said["frames_per_token"])
        self.rate, self.hop = int(said["rate"]), int(said["hop"])
        lines = (self.folder / "prompts.txt").read_text(encoding="utf-8").splitlines()
        self.prompts = [self.prompt(*line.split("\t")) for line in lines]

    def text_condition(self, text, frames=None):
        """[frames, text]; as many frames as such a text usually takes."""
        tokens = np.array([self.alphabet.index(character) + 1 for character in text.lower() if character in self.alphabet], np.int64)
        if not len(tokens):
            raise ValueError(f"nothing in {text!r} can be said: it has none of {self.alphabet!r}")
        count = frames or int(np.ceil(self.frames_per_token * len(tokens)))
        [found] = self.encoder.run(None, {"tokens": tokens[None], "frames": np.array([count])})
        return found[0]

    def prompt(self, name, text):
        """(text, features) of each frame of a recording."""
        with wave.open(str(self.folder / name)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        [features] = self.features.run(None, {"samples": samples[None, : len(samples) // self.hop * self.hop]})
        return self.text_condition(text, features.shape[1]), features[0]

    def conditions(self, text, prompt):
        """Text and speech of each frame, the prompt's and then those to be made; and how many are the prompt's."""
        said, known = self.prompts[prompt]
        whole = np.concatenate([said, self.text_condition(text)])
        speech = np.zeros((len(whole), BANDS), np.float32)
        speech[: len(known)] = known
        return whole, speech, len(known)

    def samples(self, features):
        return self.vocoder.run(None, {"features": features[None]})[0][0]
