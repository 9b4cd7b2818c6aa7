"""What is wrong is said at load; another served model as the network; load and unload without a leak."""

import json
import os
import shutil
import signal
import subprocess
import unittest

import numpy as np
from client import Client
from repository import MODELS, Repository, digits_noise, sampled
from server import BUILD, DEVICE, ROOT, Server
from tritonclient.utils import InferenceServerException


def setUpModule():
    global repository, server
    repository = Repository()
    unittest.addModuleCleanup(repository.close)
    repository.add_digits("digits")
    repository.add_library("library")
    add_served()
    server = unittest.enterModuleContext(Server(repository.folder, explicit=True))


def add_served():
    """The mixture of digits through a Python model: `mixture` asks `mixture-network`."""
    network = repository.folder / "mixture-network"
    shutil.copytree(ROOT / "bindings" / "triton" / "tests" / "mixture-network", network)
    shutil.copy(MODELS / "digits-mixture-modes.json", network / "1")
    card = json.loads((MODELS / "digits-mixture.json").read_text())
    card["runtime"] = "host"
    del card["weights"]
    version = repository.add("mixture", {"card": "card.json", "solver": "midpoint@6", "velocity_model": "mixture-network"})
    (version / "card.json").write_text(json.dumps(card))
    missing = repository.add("orphan", {"card": "card.json", "solver": "midpoint@6", "velocity_model": "nobody"})
    (missing / "card.json").write_text(json.dumps(card))
    other = repository.add("mismatched", {"card": "card.json", "solver": "midpoint@6", "velocity_model": "mixture-network",
                                          "velocity_output": "V"})  # fmt: skip
    (other / "card.json").write_text(json.dumps(card))


class Parts(unittest.TestCase):
    """Tests in C++ of what needs no server."""

    def run_part(self, program, *arguments):
        # Installed beside the library's copy that the backend loads.
        environment = {**os.environ, "LD_LIBRARY_PATH": str(BUILD / "backends" / "bespoke")}
        return subprocess.run([BUILD / "tests" / program, *arguments], capture_output=True, text=True, env=environment)

    def ok(self, program, *arguments):
        run = self.run_part(program, *arguments)
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("ok\n", "", 0))

    def test_published_solvers_are_kept_within_a_bound(self):
        self.ok("bespoke-cache-test")

    def test_a_server_of_another_api_is_told_both(self):
        self.ok("bespoke-api-test")

    def test_shares_of_a_call_are_fair(self):
        self.ok("bespoke-shares-test")

    def gpu(self):
        """Arguments of the program that has a server and a GPU of its own, neither of them there."""
        libraries = [BUILD / "backends" / "bespoke" / "libtriton_bespoke.so", DEVICE, BUILD / "tests" / "libvelocity.so"]
        return ["bespoke-gpu-test", *libraries, repository.files]

    def test_samples_of_an_instance_on_a_gpu_stay_there(self):
        self.ok(*self.gpu())

    def test_a_stray_access_to_a_samples_memory_crashes(self):
        self.assertEqual(self.run_part(*self.gpu(), "stray").returncode, -signal.SIGSEGV)


class Refusals(unittest.TestCase):
    def refused(self, words, prepare):
        """A model made by `prepare(name)` is not loaded; the log says why; the server stays."""
        Refusals.made = getattr(Refusals, "made", 0) + 1
        name = f"broken-{Refusals.made}"
        prepare(name)
        with self.assertRaises(InferenceServerException) as caught:
            server.http().load_model(name)
        log = server.log()
        for word in words:
            self.assertIn(word, str(caught.exception))
            self.assertIn(word, log)
        self.assertTrue(server.ready())

    def with_parameters(self, words, parameters, extra=""):
        self.refused(words, lambda name: repository.add_digits(name, parameters, extra))

    def test_a_broken_theta(self):
        def prepare(name):
            theta = repository.add_digits(name) / "theta.json"
            document = json.loads(theta.read_text())
            document["t"][2] = document["t"][3]
            theta.write_text(json.dumps(document))

        self.refused(["theta.json", "t[3]"], prepare)

    def test_a_theta_that_is_not_there(self):
        self.with_parameters(["nothing.json"], {"thetas": "nothing.json"})

    def test_a_broken_card(self):
        def prepare(name):
            card = repository.add_digits(name) / "digits-fm-ot.json"
            document = json.loads(card.read_text())
            document["shape"] = [1, 8, 0]
            card.write_text(json.dumps(document))

        self.refused(["digits-fm-ot.json", "shape"], prepare)

    def test_broken_weights(self):
        self.refused(["digits-fm-ot.pt"], lambda name: (repository.add_digits(name) / "digits-fm-ot.pt").write_text("no module"))

    def test_a_card_that_is_not_there(self):
        self.with_parameters(["nowhere.json"], {"card": "nowhere.json"})

    def test_a_broken_library(self):
        self.refused(["velocity_library", "libvelocity.so"],
                     lambda name: (repository.add_library(name) / "libvelocity.so").write_text("no library"))  # fmt: skip
        self.refused(["velocity_symbol", "nothing_like_it"],
                     lambda name: repository.add_library(name, {"velocity_symbol": "nothing_like_it"}))  # fmt: skip

    def test_parameters(self):
        for words, parameters in [
            (["parameter thetta is unknown"], {"thetta": "theta.json"}),
            (["parameter batching", "sometimes", "continuous or whole"], {"batching": "sometimes"}),
            (["parameter max_rows", "many"], {"max_rows": "many"}),
            (["parameter guidance_scale", "strong"], {"guidance_scale": "strong"}),
            (["parameter solver", "nosuch"], {"solver": "nosuch@8"}),
            (["parameter solver", "NFE is 3"], {"solver": "ladder@3"}),
            (["velocity_model and velocity_library"], {"velocity_model": "a", "velocity_library": "b"}),
            (["runtime", "host"], {"velocity_model": "somebody"}),
        ]:
            with self.subTest(parameters=parameters):
                self.with_parameters(words, parameters)

    def test_nothing_to_run(self):
        self.refused(["parameter card is missing"], lambda name: repository.add(name, {}))
        self.refused(["thetas and solver are missing"],
                     lambda name: repository.add(name, {"card": "c.json"}, "", []))  # fmt: skip

    def test_tensors_that_are_not_the_models(self):
        output = 'output [ { name: "SAMPLE" data_type: TYPE_FP32 dims: [ 1, 8, 9 ] } ]'
        self.with_parameters(["SAMPLE.dims", "[1,8,9]", "[1,8,8]"], {}, f"max_batch_size: 8\n{output}")
        wrong = output.replace("8, 9", "8, 8").replace("FP32", "FP16")
        self.with_parameters(["SAMPLE.data_type", "TYPE_FP16"], {}, f"max_batch_size: 8\n{wrong}")
        unknown = 'input [ { name: "PROMPT" data_type: TYPE_STRING dims: [ 1 ] optional: true } ]'
        self.with_parameters(["PROMPT", "NOISE"], {}, f"max_batch_size: 8\n{unknown}")

    def test_guidance_without_a_null_class(self):
        def prepare(name):
            card = repository.add_digits(name, {"guidance_scale": 2}) / "digits-fm-ot.json"
            document = json.loads(card.read_text())
            del document["null_class"]
            card.write_text(json.dumps(document))

        self.refused(["guidance_scale", "null_class"], prepare)


class Served(unittest.TestCase):
    """Source (b). The network is loaded after the model that asks it."""

    def test_samples_through_another_model(self):
        client = server.http()
        client.load_model("mixture")
        noise = digits_noise(5)
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer("mixture", NOISE=noise)
        self.assertIn("mixture-network", str(caught.exception))

        client.load_model("mixture-network")
        for solver, scale in (("midpoint@6", 1), ("dpm++2m@5", 2.5)):
            expected = sampled("digits-mixture", solver, noise, guidance_scale=scale)
            for protocol in ("http", "grpc"):
                found, said = Client(server, protocol).infer(
                    "mixture", NOISE=noise, SOLVER=[solver.encode()] * 5, GUIDANCE_SCALE=[scale] * 5)
                np.testing.assert_allclose(found, expected, atol=1e-5)
        # The network takes four rows at most: twenty of a guided batch are sent in parts.
        found, _ = Client(server).infer("mixture", SEED=2, COUNT=10, GUIDANCE_SCALE=2.0)
        expected = sampled("digits-mixture", "midpoint@6", seed=2, count=10, guidance_scale=2)
        np.testing.assert_allclose(found, expected, atol=1e-5)

        # What the network answers reaches the client.
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer("mixture", NOISE=noise * 1e6)
        self.assertIn("states too far out", str(caught.exception))

        client.load_model("mismatched")
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer("mismatched", SEED=1)
        self.assertIn("has no output V", str(caught.exception))

    def test_a_network_that_does_not_exist(self):
        server.http().load_model("orphan")
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer("orphan", SEED=1)
        self.assertIn("nobody", str(caught.exception))


class Cycles(unittest.TestCase):
    COUNT, WARM_UP, ALLOWED_MIB = 200, 40, 12

    def test_loads_and_unloads_without_a_leak(self):
        client, sizes = server.http(), []
        for _ in range(self.COUNT):
            for model in ("digits", "library"):
                client.load_model(model)
                Client(server).infer(model, SEED=1, SOLVER=b"euler", NFE=2)
                client.unload_model(model)
            sizes.append(server.resident_mib())
        # Late against early, each as a mean, since the allocator gives memory back late.
        early, late = np.mean(sizes[self.WARM_UP : self.WARM_UP + 20]), np.mean(sizes[-20:])
        print(f"\nresident after {self.WARM_UP} cycles {early:.1f} MiB, after {self.COUNT} {late:.1f} MiB")
        self.assertLess(late - early, self.ALLOWED_MIB)


if __name__ == "__main__":
    unittest.main()
