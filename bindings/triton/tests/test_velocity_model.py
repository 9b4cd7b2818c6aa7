"""`bespoke --triton`: solvers for a network that the server has, learned and compared on that very network."""

import contextlib
import http.server
import json
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import unittest.mock
from pathlib import Path

import numpy as np
from conditioned import card, euler, order
from repository import BESPOKE, MODELS, ROOT
from server import Server

HERE = Path(__file__).parent
CONDITIONED = {"format": "bespoke-model", "version": 1, "runtime": "host", "output": "velocity", "scheduler": {"name": "fm-ot"}}
# A few seconds on a network in Python.
SMALL = ("--family", "rk1", "--steps", 3, "--iterations", 6, "--batch", 6, "--pool", 12, "--validation", 12,
         "--rtol", 1e-3, "--atol", 1e-3, "--seed", 3)  # fmt: skip


def setUpModule():
    global folder, repository, server
    folder = Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    repository = folder / "repository"
    for name in ("mixture-network", "conditioned-network"):
        shutil.copytree(HERE / name, repository / name)
    shutil.copy(MODELS / "digits-mixture-modes.json", repository / "mixture-network" / "1")
    decoupled = shutil.copytree(HERE / "mixture-network", repository / "decoupled")
    shutil.copy(MODELS / "digits-mixture-modes.json", decoupled / "1")
    with (decoupled / "config.pbtxt").open("a") as config:
        config.write("model_transaction_policy { decoupled: true }\n")
    document = json.loads((MODELS / "digits-mixture.json").read_text())
    served = {key: value for key, value in document.items() if key not in ("weights", "features", "judge")}
    write("digits.json", {**served, "runtime": "host"})
    write("conditioned.json", {**CONDITIONED, **card()})
    server = unittest.enterModuleContext(Server(repository))


def write(name, document):
    (folder / name).write_text(json.dumps(document))
    return folder / name


def run(*arguments):
    return subprocess.run([BESPOKE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=300)


def at(where, model):
    return "--triton", f"http://127.0.0.1:{where.ports['http']}", "--velocity-model", model


def safetensors(path, tensors):
    """The tensors in the format's own words: a length, JSON, numbers."""
    names = {"float32": "F32", "int64": "I64", "bool": "BOOL"}
    header, blob = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": names[str(values.dtype)], "shape": values.shape, "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)
    return path


class Served(unittest.TestCase):
    def done(self, *arguments):
        end = run(*arguments)
        self.assertEqual(end.returncode, 0, end.stderr)
        return end

    def refused(self, words, *arguments):
        end = run(*arguments)
        self.assertNotEqual(end.returncode, 0)
        self.assertIn(words, end.stderr)

    def test_a_solver_is_learned_on_the_served_network_as_on_the_same_one_here(self):
        local = ("--model", MODELS / "digits-mixture.json")
        served = ("--model", folder / "digits.json", *at(server, "mixture-network"))
        self.done("train", *local, *SMALL, "--optimizer", "forward-gauss-newton", "--out", folder / "local.json")
        self.done("train", *served, *SMALL, "--out", folder / "served.json")
        theta = json.loads((folder / "served.json").read_text())
        self.assertEqual(theta["model"]["velocity_model"], "mixture-network")
        errors = []
        for name, where in (("local", local), ("served", served)):
            solvers = ("--solver", folder / f"{name}.json", "--solver", "euler@3")
            self.done("eval", *where, *solvers, "--count", 20, "--quiet", "--json", folder / f"{name}-eval.json")
            results = json.loads((folder / f"{name}-eval.json").read_text())["results"]
            errors.append([result["rmse"] for result in results])
        # The server's numpy and the library round differently; a training carries that further.
        self.assertAlmostEqual(errors[1][0] / errors[0][0], 1, delta=0.01)
        self.assertAlmostEqual(errors[1][1] / errors[0][1], 1, delta=1e-5)
        self.assertLess(errors[1][0], 0.8 * errors[1][1])

    def test_inputs_sizes_scales_and_dtypes_of_a_card(self):
        rng = np.random.default_rng(5)
        given = order(rng, frames=6, tokens=4, rows=11)
        # Eleven rows are two requests of the server's eight at most.
        given["text_scale"][:], given["GUIDANCE_SCALE"][:] = 2, 3
        weight = given["weight"][:, 0]
        inputs = {**{name: given[name] for name in ("cond", "text", "mask")}, "weight": weight}
        np.save(folder / "noise.npy", given["NOISE"])
        self.done(
            "sample", "--model", folder / "conditioned.json", *at(server, "conditioned-network"), "--solver", "euler@5",
            "--noise", folder / "noise.npy", "--conditions", safetensors(folder / "conditions.safetensors", inputs),
            "--guidance-scale", "text_scale=2,guidance_scale=3", "--out", folder / "samples.npy",
        )  # fmt: skip
        found = np.load(folder / "samples.npy")
        # The network takes and answers half precision.
        self.assertLess(np.abs(found - euler(given)).max(), 0.02)

    def test_what_is_not_there_or_not_so_is_refused_by_name(self):
        digits = ("sample", "--model", folder / "digits.json", "--solver", "euler@2", "--count", 2, "--out", folder / "none.npy")
        good = at(server, "mixture-network")
        self.refused("unknown model: 'nothing'", *digits, *at(server, "nothing"))
        self.refused("version", *digits, *at(server, "mixture-network:7"))
        self.refused("velocity_model is a/b, expected NAME or NAME:VERSION", *digits, *at(server, "a/b"))
        self.refused("velocity_model is n:0, expected", *digits, *at(server, "n:0"))
        self.refused("velocity_model is absent, expected", *digits, *good[:2])
        self.refused("velocity_model is mixture-network, expected absent without triton", *digits, *good[2:])
        for address in ("https://127.0.0.1:8000", "127.0.0.1", "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://127.0.0.1:", "http://"):
            self.refused(f"triton is {address}, expected http://HOST:PORT", *digits, "--triton", address, *good[2:])
        self.refused("decoupled: is true, expected one response", *digits, *at(server, "decoupled"))
        self.refused("CLASS: is an input of the model, but velocity_inputs and the card's inputs are X, T, class", *digits, *good, "--velocity-inputs", "X,T")
        self.refused("X: is an input of the model, but velocity_inputs and the card's inputs are Y, T, CLASS", *digits, *good, "--velocity-inputs", "Y,T,CLASS")
        self.refused("V: is no output of the model, whose are U", *digits, *good, "--velocity-output", "V")
        for names in ("X", "X,X,CLASS", "X,,CLASS", "X,T,CLASS,MORE"):
            self.refused(f"velocity_inputs is {names}, expected two or three different names", *digits, *good, "--velocity-inputs", names)
        self.refused("device is cuda:0, expected cpu", *digits, *good, "--device", "cuda:0")
        self.refused("dtype is bf16, expected f32", *digits, *good, "--dtype", "bf16")
        self.refused('is not "host"', *digits[:2], MODELS / "digits-mixture.json", *digits[3:], *good)
        document = json.loads((folder / "digits.json").read_text())
        wide = write("wide.json", {**document, "shape": [1, 8, 9]})
        self.refused("X: is of shape [any, 1, 8, 8] in the server's model, but of [any, 1, 8, 9]", *digits[:2], wide, *digits[3:], *good)
        more = write("more.json", {**document, "inputs": [{"name": "text", "dtype": "int64", "shape": []}]})
        self.refused("text: is no input of the model, whose are X, T, CLASS", *digits[:2], more, *digits[3:], *good)
        self.assertFalse((folder / "none.npy").exists())

    def test_a_check_reads_the_served_network(self):
        end = self.done("check", folder / "digits.json", *at(server, "mixture-network"))
        self.assertIn("signature agrees: x [1, 8, 8], class its null", end.stdout)
        self.refused("unknown model: 'nothing'", "check", folder / "digits.json", *at(server, "nothing"))

    def test_a_ground_truth_is_of_one_served_network(self):
        pool = ("--pool-file", folder / "pool.safetensors")
        served = ("train", "--model", folder / "digits.json", *SMALL, *pool)
        self.done(*served, *at(server, "mixture-network"), "--out", folder / "one.json")
        end = run(*served, *at(server, "mixture-network:1"), "--out", folder / "other.json")
        self.assertNotEqual(end.returncode, 0)
        self.assertIn('velocity_model: is "mixture-network", but this run has "mixture-network:1"', end.stderr)
        end = self.done("sample", "--model", folder / "digits.json", *at(server, "mixture-network:1"), "--solver", folder / "one.json",
                        "--count", 2, "--out", folder / "samples.npy")  # fmt: skip
        self.assertIn("was trained for mixture-network, not for mixture-network:1", end.stderr)

    def test_the_networks_own_error_is_handed_on(self):
        np.save(folder / "far.npy", np.full((2, 1, 8, 8), 1e4, np.float32))
        self.refused(
            "states too far out", "sample", "--model", folder / "digits.json", *at(server, "mixture-network"),
            "--solver", "euler@2", "--noise", folder / "far.npy", "--out", folder / "none.npy",
        )  # fmt: skip
        self.assertFalse((folder / "none.npy").exists())

    def test_a_training_goes_on_where_the_server_had_gone(self):
        def training(where, name, *more):
            files = ("--out", folder / f"{name}.json", "--checkpoint", folder / f"{name}.checkpoint")
            return [str(part) for part in (
                BESPOKE, "train", "--model", folder / "digits.json", *at(where, "mixture-network"), *SMALL, "--quiet", *files, *more)]  # fmt: skip

        subprocess.run(training(server, "whole"), check=True, cwd=ROOT, timeout=300)
        with Server(repository) as other:
            process = subprocess.Popen(training(other, "cut"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 120
            while not (folder / "cut.checkpoint").exists() and process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
        _, words = process.communicate(timeout=120)
        if process.returncode != 0:
            self.assertIn("cannot ask http://127.0.0.1", words)
            self.assertFalse((folder / "cut.json").exists())
        subprocess.run(training(server, "cut", "--resume"), check=True, cwd=ROOT, timeout=300)
        self.assertEqual((folder / "whole.json").read_text(), (folder / "cut.json").read_text())


class Answer:
    """What a server answers to a request for samples of [count, 1, 8, 8], whole or spoilt."""

    def __init__(self, **spoilt):
        self.spoilt = {"shape": None, "datatype": "FP32", "name": "U", "cut": 0, "json": False, "length": True, "words": None,
                       "statuses": [], **spoilt}  # fmt: skip

    def body(self, count):
        spoilt = self.spoilt
        if spoilt["words"] is not None:
            return spoilt["words"], {}
        numbers = np.zeros((count, 1, 8, 8), np.float32).tobytes()
        output = {"name": spoilt["name"], "datatype": spoilt["datatype"], "shape": spoilt["shape"] or [count, 1, 8, 8]}
        if spoilt["json"]:
            text = json.dumps({"outputs": [{**output, "data": [0.0] * 64 * count}]}).encode()
            return text, {}
        text = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": len(numbers)}}]}).encode()
        body = text + numbers
        return body[: len(body) - spoilt["cut"]], {"Inference-Header-Content-Length": len(text)} if spoilt["length"] else {}


@contextlib.contextmanager
def pretender(answer):
    """A server of one's own making; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            tensors = [("X", "FP32", [-1, 1, 8, 8]), ("T", "FP32", [-1, 1]), ("CLASS", "INT64", [-1, 1]), ("U", "FP32", [-1, 1, 8, 8])]
            said = [dict(zip(("name", "datatype", "shape"), tensor)) for tensor in tensors]
            config = {"max_batch_size": 4} if self.path.endswith("/config") else {"inputs": said[:3], "outputs": said[3:]}
            self.answer(json.dumps(config).encode(), {})

        def do_POST(self):
            length = int(self.headers["Inference-Header-Content-Length"])
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"]))[:length])
            if answer.spoilt["statuses"]:
                status = answer.spoilt["statuses"].pop()
                return self.answer(b'{"error": "line\\u001b[2J\\nerror: another"}', {"Location": "/elsewhere"}, status)
            self.answer(*answer.body(asked["inputs"][0]["shape"][0]))

        def answer(self, body, headers, status=200):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield served.server_port
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


class Pretender(unittest.TestCase):
    def sample(self, answer):
        out = folder / "pretended.npy"
        with pretender(answer) as port:
            end = run("sample", "--model", folder / "digits.json", "--triton", f"127.0.0.1:{port}", "--velocity-model", "m",
                      "--solver", "euler@2", "--count", 6, "--out", out)  # fmt: skip
        return end, out

    def test_an_answer_that_is_not_what_was_asked_for_is_no_velocity(self):
        end, out = self.sample(Answer())
        self.assertEqual(end.returncode, 0, end.stderr)
        out.unlink()
        spoilt = {
            "expected U of FP32": [{"shape": [4, 1, 8, 9]}, {"datatype": "FP16"}, {"name": "V"}],
            "bytes, expected": [{"cut": 4}],
            "numbers as JSON": [{"json": True}],
            "none of a Triton server's": [{"words": b"<html>"}, {"words": b"{}"}, {"length": False}],
            "has 0 outputs": [{"words": b'{"outputs": []}'}],
        }
        for words, cases in spoilt.items():
            for case in cases:
                with self.subTest(**case):
                    end, out = self.sample(Answer(**case))
                    self.assertNotEqual(end.returncode, 0)
                    self.assertIn(words, end.stderr)
                    self.assertIn("cannot ask http://127.0.0.1", end.stderr)
                    self.assertFalse(out.exists())

    def test_a_busy_server_is_asked_again(self):
        end, out = self.sample(Answer(statuses=[503, 429, 502]))
        self.assertEqual(end.returncode, 0, end.stderr)
        out.unlink()
        # Where it stays so, its words are told, on one line.
        end, out = self.sample(Answer(statuses=[503] * 40))
        self.assertIn("the server answered 503 Service Unavailable: line [2J error: another\n", end.stderr)
        self.assertFalse(out.exists())

    def test_a_redirection_is_not_followed(self):
        end, out = self.sample(Answer(statuses=[307] * 40))
        self.assertIn("the server answered 307", end.stderr)
        self.assertFalse(out.exists())

    def test_proxies_of_the_environment_are_not_asked(self):
        with unittest.mock.patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}):
            end, out = self.sample(Answer())
        self.assertEqual(end.returncode, 0, end.stderr)
        out.unlink()


if __name__ == "__main__":
    unittest.main()
