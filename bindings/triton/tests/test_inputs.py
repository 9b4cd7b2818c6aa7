"""A card's named inputs, sizes and scales of guidance: mixed batches against a few lines of numpy, and bad requests."""

import concurrent.futures
import shutil
import subprocess
import unittest
from pathlib import Path

import numpy as np
from client import Client
from conditioned import PARAMETERS, card, euler, order
from repository import Repository
from server import BUILD, Server
from tritonclient.utils import InferenceServerException


def setUpModule():
    global repository, server
    repository = Repository()
    unittest.addModuleCleanup(repository.close)
    repository.add_library("conditioned", PARAMETERS, card=card())
    repository.add_library("conditioned-small", {**PARAMETERS, "max_numbers": 200}, card=card())
    served = {"solver": "euler@5", "velocity_model": "conditioned-network"}
    add_served(served)
    shutil.copytree(Path(__file__).parent / "conditioned-network", repository.folder / "conditioned-network")
    server = unittest.enterModuleContext(Server(repository.folder))


def add_served(parameters):
    version = repository.add_library("conditioned-served", parameters, card=card())
    config = version.parent / "config.pbtxt"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "velocity_library" not in line))


class Inputs(unittest.TestCase):
    def close(self, found, expected, tolerance=1e-5):
        self.assertEqual(found.shape, expected.shape)
        self.assertLess(np.abs(found - expected).max(), tolerance)

    def test_a_request_over_both_protocols(self):
        given = order(np.random.default_rng(1), frames=7, tokens=4, rows=3)
        for client in (Client(server), Client(server, "grpc")):
            self.close(client.infer("conditioned", **given)[0], euler(given))

    def test_mixed_sizes_texts_and_scales_equal_single_requests(self):
        rng = np.random.default_rng(2)
        client = Client(server, concurrency=32)
        orders = [order(rng, frames=int(rng.choice([2, 5, 9])), tokens=int(rng.choice([1, 3])), rows=int(rng.integers(1, 4)))
                  for _ in range(60)]  # fmt: skip
        waits = [client.start("conditioned", **given) for given in orders]
        for given, wait in zip(orders, waits):
            self.close(wait()[0], euler(given))

    def test_no_size_waits_for_large_requests_of_another(self):
        rng = np.random.default_rng(4)
        large = {**order(rng, frames=40, tokens=4, rows=64), "SOLVER": [b"euler"] * 64, "NFE": [1000] * 64}
        waits = [Client(server, "grpc").start("conditioned", **large) for _ in range(2)]
        for frames in (3, 40):
            given = order(rng, frames=frames, tokens=4, rows=2)
            self.close(Client(server).infer("conditioned", **given)[0], euler(given))
        for wait in waits:
            with self.assertRaises(concurrent.futures.TimeoutError):
                wait(timeout=0)
            wait.cancel()

    def test_a_served_network_gets_the_dtypes_that_it_declares(self):
        rng = np.random.default_rng(3)
        client = Client(server, concurrency=8)
        orders = [order(rng, frames=frames, tokens=2, rows=2) for frames in (3, 4, 3, 4, 3)]
        waits = [client.start("conditioned-served", **given) for given in orders]
        for given, wait in zip(orders, waits):
            self.close(wait()[0], euler(given), 2e-2)

    def test_a_seed_takes_its_size_from_the_inputs(self):
        rng = np.random.default_rng(4)
        given = order(rng, frames=6, tokens=2)
        del given["NOISE"]
        client = Client(server)
        first = client.infer("conditioned", SEED=5, COUNT=2, **given)[0]
        self.assertEqual(first.shape, (2, 6, 3))
        # Of x' = -x / 2 one step of Euler is half of the noise.
        still = {**given, "text": 0 * given["text"], "mask": given["mask"] & False, "weight": 0 * given["weight"]}
        noise = 2 * client.infer("conditioned", SEED=5, COUNT=2, SOLVER=b"euler@1", **still)[0]
        both = {name: np.repeat(value, 2, 0) for name, value in given.items()}
        self.close(first, euler({"NOISE": noise, **both}))
        self.close(client.infer("conditioned", SEED=5, COUNT=2, asked={"frames": 6}, **given)[0], first, 1e-6)

    def refused(self, words, asked=None, model="conditioned", **changes):
        given = {**order(np.random.default_rng(5), frames=4, tokens=2), **changes}
        given = {name: value for name, value in given.items() if value is not None}
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer(model, asked=asked, **given)
        for word in words:
            self.assertIn(word, caught.exception.message())

    def test_bad_requests_name_the_input(self):
        wide = np.zeros((1, 5, 3), np.float32)
        self.refused(["cond"], cond=None)
        self.refused(["cond", "frames 4"], cond=wide)
        self.refused(["mask", "frames 5"], NOISE=None, cond=wide, mask=np.ones((1, 4), bool))
        self.refused(["cond", "FP64"], cond=np.zeros((1, 4, 3)))
        self.refused(["weight", "shape"], weight=np.zeros((1, 2), np.float32))
        self.refused(["text", "batch size"], text=np.zeros((2, 2), np.int64))
        self.refused(["text_scale", "nan"], text_scale=np.full((1, 1), np.nan, np.float32))
        self.refused(["parameter frames", "at least 1"], asked={"frames": -4})
        self.refused(["frames 5"], asked={"frames": 5})
        self.refused(["max_numbers", "200"], model="conditioned-small", **order(np.random.default_rng(6), 50, 2))
        self.refused(["COUNT", "max_numbers"], model="conditioned-small", NOISE=None, COUNT=20)
        # The server is there for others.
        given = order(np.random.default_rng(7), frames=4, tokens=2)
        self.close(Client(server).infer("conditioned-small", **given)[0], euler(given))

    def test_numbers_bound_what_is_evaluated_together(self):
        client = Client(server, concurrency=16)
        orders = [order(np.random.default_rng(k), frames=10, tokens=2) for k in range(16)]
        before = self.statistics()
        waits = [client.start("conditioned-small", **given) for given in orders]
        for given, wait in zip(orders, waits):
            self.close(wait()[0], euler(given))
        # A sample of ten frames and its inputs are 30 + 30 + 2 + 10 + 1 numbers: two at a time.
        self.assertGreaterEqual(self.statistics() - before, 8 * 5)

    def statistics(self):
        stats = server.http().get_inference_statistics("conditioned-small")["model_stats"][0]
        return stats["execution_count"]

    def test_numbers_of_sixteen_bits_there_and_back(self):
        subprocess.run([BUILD / "tests" / "bespoke-half-test"], check=True)


class Loading(unittest.TestCase):
    def test_a_card_that_takes_a_name_of_the_backend(self):
        inputs = [{"name": "SEED", "dtype": "float32", "shape": []}]
        version = repository.add_library("named-seed", {"velocity_symbol": "bespoke_conditioned"}, card=card(inputs=inputs, guidance=None))
        self.addCleanup(shutil.rmtree, version.parent)
        with Server(repository.folder) as own:
            self.assertIn('is "SEED", expected another name', own.log())
            self.assertFalse(own.http().is_model_ready("named-seed"))
            self.assertTrue(own.http().is_model_ready("conditioned"))


if __name__ == "__main__":
    unittest.main()
