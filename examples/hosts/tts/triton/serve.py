"""Text to speech on Triton: the repository of this folder, and what it answers under load.

    python serve.py                                    the table of docs/hosts/text-to-speech-triton.md
    python serve.py --say "thank you for calling" --out said.wav
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc

HERE = Path(__file__).resolve().parent
TTS = HERE.parent
ROOT = HERE.parents[3]
sys.path.append(str(ROOT / "bindings" / "triton" / "tests"))

from server import BUILD, Server  # noqa: E402

RATE, PROMPTS = 8000, 6
#: What both are asked with, and how the reference is solved.
SCALE, EXACT = 2.5, "rk4@96"
#: Models of the server, and the solvers that they are asked for.
ASKED = [("speech-loop", f"euler@{nfe}") for nfe in (5, 8, 16)] + [("speech", f"velocity-ladder@{nfe}") for nfe in (3, 4, 5, 8)]


def repository(folder):
    """The models of this folder, with the files that lie elsewhere."""
    shutil.copytree(HERE / "models", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    voice = TTS / "voice"
    for model, files in {
        "flow": [voice / "velocity.json", voice / "velocity.onnx", voice / "velocity-ladder.json"],
        "flow-loop": [voice / "velocity.onnx"],
        "vocoder": [voice / "vocoder.onnx"],
        "encoder": [],
        # An ensemble's version is an empty folder.
        "speech": [],
        "speech-loop": [],
    }.items():
        version = folder / model / "1"
        version.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, version)
    shutil.copytree(voice, folder / "encoder" / "1" / "voice")
    [packages] = ROOT.glob(".venv/lib/python3*/site-packages")
    for model in ("encoder", "flow-loop", "vocoder"):
        shutil.copy(TTS / "graphs.py", folder / model / "1")
        (folder / model / "1" / "packages.txt").write_text(str(packages))
    return folder


@dataclass(frozen=True)
class Request:
    text: str
    prompt: int = 0
    seed: int = 0

    def tensors(self, solver, scale=SCALE):
        """As the ensembles take it."""
        values = {
            "TEXT": ("BYTES", np.array([[self.text.encode()]], object)),
            "PROMPT": ("INT64", np.array([[self.prompt]])),
            "SEED": ("INT64", np.array([[self.seed]])),
            "GUIDANCE_SCALE": ("FP32", np.array([[scale]], np.float32)),
            "SOLVER": ("BYTES", np.array([[solver.encode()]], object)),
        }
        tensors = [grpc.InferInput(name, array.shape, dtype) for name, (dtype, array) in values.items()]
        for tensor, (_, array) in zip(tensors, values.values()):
            tensor.set_data_from_numpy(array)
        return tensors


def ask(connection, model, request, solver, scale=SCALE):
    """(samples [n], features [frames, bands])."""
    result = connection.infer(model, request.tensors(solver, scale))
    return result.as_numpy("AUDIO")[0], result.as_numpy("FEATURES")[0]


def all_requests():
    """Every text of texts.txt after one of the prompts, and the shortest and longest pieces of them: of mixed lengths."""
    texts = (TTS / "texts.txt").read_text(encoding="utf-8").splitlines()
    texts += [text.split()[0] + " " + text.split()[-1] for text in texts] + [f"{a}, {b}" for a, b in zip(texts, texts[1:])]
    return [Request(text, i % PROMPTS, i) for i, text in enumerate(texts)]


def processor_time(server):
    """Seconds of processor time that the server and its Python models have taken."""
    ticks, stats = 0, []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append((int(entry.parent.name), entry.read_text().rpartition(")")[2].split()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    for process, fields in stats:
        if server.process.pid in (process, int(fields[1])):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Load:
    """Clients that ask one after the other, each in a thread of its own."""

    def __init__(self, server, model, solver, requests, clients):
        self.server, self.model, self.solver, self.requests, self.clients = server, model, solver, requests, clients
        self.waits, self.heard, self.failures = [], 0, []

    def _client(self, number, until):
        connection = self.server.grpc()
        order = np.random.default_rng(number)
        while time.monotonic() < until:
            begun = time.monotonic()
            try:
                samples, _ = ask(connection, self.model, self.requests[order.integers(len(self.requests))], self.solver)
            except Exception as failure:
                self.failures.append(failure)
                return
            self.waits.append(time.monotonic() - begun)
            self.heard += len(samples)

    def run(self, seconds):
        """(requests a second, processor time a second of speech, median and 99th percentile of the waits in seconds)."""
        begun, before = time.monotonic(), processor_time(self.server)
        threads = [threading.Thread(target=self._client, args=(number, begun + seconds)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        taken, spent = time.monotonic() - begun, processor_time(self.server) - before
        return len(self.waits) / taken, spent / (self.heard / RATE), *np.percentile(self.waits, [50, 99])


def rmse(server, model, solver, requests, truth):
    """Of the features of each request, then their mean."""
    connection = server.grpc()
    found = [ask(connection, model, request, solver)[1] for request in requests]
    return float(np.mean([np.sqrt(np.square(a - b).mean()) for a, b in zip(found, truth)]))


def reference(server, requests):
    connection = server.grpc()
    return [ask(connection, "speech", request, EXACT)[1] for request in requests]


def table(server, seconds, clients):
    requests = all_requests()
    truth = reference(server, requests)
    print("| model | solver | rmse | requests/s | processor time / speech | p50 | p99 |\n| --- | --- | --- | --- | --- | --- | --- |")
    for model, solver in ASKED:
        error = rmse(server, model, solver, requests, truth)
        rate, share, median, last = Load(server, model, solver, requests, clients).run(seconds)
        name = solver.replace("velocity-ladder", "theta")
        waits = f"{1000 * median:.0f} ms | {1000 * last:.0f} ms"
        print(f"| {model} | {name} | {error:.4f} | {rate:.1f} | {share:.3f} | {waits} |", flush=True)


def save(samples, path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of load for each row of the table")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--say", metavar="TEXT")
    parser.add_argument("--out", default="said.wav")
    arguments = parser.parse_args()
    os.environ.setdefault("BESPOKE_LIBRARY", str(BUILD / "prefix" / "lib" / "libbespoke.so"))
    # The network has one thread in either flow.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder, Server(repository(Path(folder))) as server:
        if arguments.say is None:
            table(server, arguments.seconds, arguments.clients)
            return
        samples, _ = ask(server.grpc(), "speech", Request(arguments.say), "velocity-ladder@8")
    save(samples, arguments.out)
    print(f"{len(samples) / RATE:.2f} s of speech, written to {arguments.out}")


if __name__ == "__main__":
    main()
