"""The shipped text-conditional digits through the three kinds of network: what `bespoke sample` draws of the same noise,
text and scale, in requests of their own and mixed."""

import json
import shutil
import unittest
from pathlib import Path

import numpy as np
from client import Client
from repository import MODELS, Repository, bespoke, digits_noise
from server import ROOT, Server

CARD = "digits-text"
CONDITIONS = ["digits-text-9", "digits-text-others-11"]
SCALES = (1.0, 2.5, 4.0)
ROWS = 6
SOURCES = ("text-card", "text-onnx", "text-served", "text-library")


def setUpModule():
    global repository, server, requests
    repository = Repository()
    unittest.addModuleCleanup(repository.close)
    theta = repository.files / "theta.json"
    own = {"thetas": "theta.json"}
    onnx = [MODELS / f"{CARD}-onnx.json", MODELS / f"{CARD}.onnx"]
    repository.add("text-card", {"card": f"{CARD}.json", **own}, files=[MODELS / f"{CARD}.json", MODELS / f"{CARD}.pt", theta])
    repository.add("text-onnx", {"card": f"{CARD}-onnx.json", **own}, files=[*onnx, theta])
    keys = json.loads((MODELS / f"{CARD}.json").read_text())
    host = {key: keys[key] for key in ("shape", "inputs", "scheduler", "output", "time")}
    for name, source in (("text-served", {"velocity_model": "text-network"}), ("text-library", {"velocity_symbol": "bespoke_text"})):
        version = repository.add_library(name, {"solver": "theta", **own, **source}, card=host)
        for file in (theta, *onnx):
            shutil.copy(file, version)
    config = repository.folder / "text-served" / "config.pbtxt"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "velocity_library" not in line))
    network = repository.folder / "text-network"
    shutil.copytree(Path(__file__).parent / "text-network", network)
    shutil.copy(MODELS / f"{CARD}.onnx", network / "1")
    [packages] = ROOT.glob(".venv/lib/python3*/site-packages")
    (network / "1" / "packages.txt").write_text(str(packages))
    requests = list(all_requests(theta))
    server = unittest.enterModuleContext(Server(repository.folder))


def rows_of(name):
    """The texts of a file of conditions, `ROWS` of them."""
    content = (MODELS / "conditions" / f"{name}.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + size])["text"]
    begin, end = entry["data_offsets"]
    return np.frombuffer(content[8 + size :][begin:end], np.float32).reshape(entry["shape"])[:ROWS]


def all_requests(theta):
    """Tensors of each request, and its sample by the command line."""
    for k, name in enumerate(CONDITIONS):
        noise, texts = digits_noise(ROWS, seed=k), rows_of(name)
        np.save(repository.files / "noise.npy", noise)
        drawn = {}
        for scale in SCALES:
            bespoke(
                "sample", "--model", MODELS / f"{CARD}.json", "--solver", theta, "--noise", repository.files / "noise.npy",
                "--conditions", MODELS / "conditions" / f"{name}.safetensors", "--guidance-scale", scale,
                "--out", repository.files / "samples.npy",
            )  # fmt: skip
            drawn[scale] = np.load(repository.files / "samples.npy")
        for row in range(ROWS):
            scale = SCALES[row % len(SCALES)]
            given = {"NOISE": noise[row : row + 1], "text": texts[row : row + 1], "GUIDANCE_SCALE": [scale]}
            yield given, drawn[scale][row : row + 1]


class Text(unittest.TestCase):
    def close(self, found, expected):
        self.assertEqual(found.shape, expected.shape)
        self.assertLess(np.abs(found - expected).max(), 1e-5)

    def test_each_kind_of_network_draws_what_the_command_line_draws(self):
        for protocol in ("http", "grpc"):
            client = Client(server, protocol)
            for source in SOURCES:
                for given, expected in requests:
                    with self.subTest(source=source, protocol=protocol):
                        self.close(client.infer(source, **given)[0], expected)

    def test_mixed_texts_sizes_and_scales_are_what_they_are_alone(self):
        client = Client(server, concurrency=2 * len(requests))
        for source in SOURCES:
            order = np.random.default_rng(1).permutation(2 * len(requests)) % len(requests)
            waits = [(client.start(source, **requests[k][0]), requests[k][1]) for k in order]
            for wait, expected in waits:
                with self.subTest(source=source):
                    self.close(wait()[0], expected)

    def test_rows_of_one_request_have_texts_and_scales_of_their_own(self):
        alike = requests[:ROWS]
        together = {name: np.concatenate([given[name] for given, _ in alike]) for name in alike[0][0]}
        for source in SOURCES:
            with self.subTest(source=source):
                self.close(Client(server).infer(source, **together)[0], np.concatenate([expected for _, expected in alike]))


if __name__ == "__main__":
    unittest.main()
