"""Continuous batching, cancellation, streaming, instances, warm-up, statistics: on a velocity with known cost.

The velocity is tests/velocity.cpp, source (c): u = class / 10 + t - x / 2; classes 8 and 9 take 20 ms
a call, class 3 becomes NaN, class 7 answers an error.
"""

import json
import queue
import threading
import time
import unittest
import urllib.request

import numpy as np
from client import Client, parameters, tensors
from repository import Repository
from server import ON_DEVICE, Server
from tritonclient.utils import InferenceServerException

CALLS = "bespoke_network_calls_total"


def euler(noise, of_class, nfe, guidance_scale=1.0, predictions=False):
    """Independent of the library: Euler's method on the velocity of tests/velocity.cpp."""
    x, predicted = noise.astype(np.float64), []
    for k in range(nfe):
        t = k / nfe
        conditional, unconditional = of_class / 10 + t - x / 2, 1.0 + t - x / 2
        u = unconditional + guidance_scale * (conditional - unconditional)
        predicted.append(x + (1 - t) * u)
        x = x + u / nfe
    return (x, predicted) if predictions else x


def noise(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def setUpModule():
    global repository, server
    repository = Repository()
    unittest.addModuleCleanup(repository.close)
    decoupled = "model_transaction_policy { decoupled: true }"
    for name, options, extra in [
        ("continuous", {}, ""),
        ("whole", {"batching": "whole"}, ""),
        ("one-row", {"max_rows": 1}, ""),
        ("stream", {"preview_every": 2}, decoupled),
        ("quiet", {"preview_every": 0}, decoupled),
        ("instances", {}, "instance_group [ { count: 2 kind: KIND_CPU } ]"),
        ("warm", {}, 'model_warmup [ { name: "w" batch_size: 1 inputs { key: "NOISE" value: '
                     "{ data_type: TYPE_FP32 dims: [ 4 ] random_data: true } } } ]"),
    ]:  # fmt: skip
        repository.add_library(name, options, extra)
    server = unittest.enterModuleContext(Server(repository.folder))


class Case(unittest.TestCase):
    def close(self, found, expected):
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def calls_of(self, model, body):
        before = server.metric(CALLS, model)
        body()
        return server.metric(CALLS, model) - before


class Velocity(Case):
    def test_is_that_of_the_library(self):
        for protocol in ("http", "grpc"):
            for of_class, scale, nfe in [(0, 1, 10), (5, 1, 4), (5, 2.5, 6), (2, 0, 3)]:
                found, _ = Client(server, protocol).infer(
                    "continuous", NOISE=noise(1), CLASS=of_class, GUIDANCE_SCALE=scale, SOLVER=b"euler", NFE=nfe)
                self.close(found, euler(noise(1), of_class, nfe, scale))

    def test_that_is_not_finite_fails_its_own_request_alone(self):
        client = Client(server, "http", concurrency=3)
        classes, x = [9, 3, 8], noise(3, seed=1)
        pending = [client.start("continuous", NOISE=x[i : i + 1], CLASS=c) for i, c in enumerate(classes)]
        for i, (of_class, wait) in enumerate(zip(classes, pending)):
            if of_class != 3:
                self.close(wait()[0], euler(x[i : i + 1], of_class, 10))
                continue
            with self.assertRaises(InferenceServerException) as caught:
                wait()
            # Nobody looks at a device's velocities.
            words = "the sample holds a NaN" if ON_DEVICE else "evaluation 5 holds a NaN"
            self.assertIn(words, str(caught.exception))

    def test_that_answers_an_error_is_reported(self):
        with self.assertRaises(InferenceServerException) as caught:
            Client(server).infer("continuous", NOISE=noise(1), CLASS=7)
        self.assertIn("answered 42", str(caught.exception))
        self.close(Client(server).infer("continuous", NOISE=noise(1), CLASS=1)[0], euler(noise(1), 1, 10))


class Continuous(Case):
    def late(self, model):
        """A long request and, when it is half-way, a short one: order of their ends, network calls."""
        client, ends = Client(server, "http", concurrency=2), []

        def run(name, of_class, nfe, after):
            time.sleep(after)
            found, _ = client.infer(model, NOISE=noise(1), CLASS=of_class, SOLVER=b"euler", NFE=nfe)
            ends.append(name)
            self.close(found, euler(noise(1), of_class, nfe))

        def both():
            threads = [threading.Thread(target=run, args=arguments) for arguments in
                       [("long", 9, 50, 0), ("short", 8, 5, 0.4)]]  # fmt: skip
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        calls = self.calls_of(model, both)
        return ends, calls

    def test_a_late_request_joins_the_next_call(self):
        self.assertEqual(self.late("continuous"), (["short", "long"], 50))

    def test_whole_batches_keep_it_waiting(self):
        self.assertEqual(self.late("whole"), (["long", "short"], 55))

    def test_with_room_for_one_row_requests_take_turns(self):
        ends, calls = self.late("one-row")
        self.assertEqual((ends, calls), (["short", "long"], 55))

    def test_two_instances_run_two_batches(self):
        ends, calls = self.late("instances")
        self.assertEqual((ends, calls), (["short", "long"], 55))


class Shares(Case):
    """Nobody waits for a request of all that the limits allow."""

    def beside(self, large, body, count=3):
        """Runs `body` while large requests are on their way, which are then given up."""
        waits = [Client(server, "grpc").start("continuous", **large) for _ in range(count)]
        time.sleep(0.5)
        try:
            return body()
        finally:
            for wait in waits:
                wait.cancel()
            for wait in waits:
                with self.assertRaises(InferenceServerException):
                    wait()

    def test_of_a_small_request_beside_large_ones(self):
        x = noise(3, seed=8)

        def small():
            found, _ = Client(server).infer("continuous", NOISE=x, CLASS=[9] * 3, SOLVER=[b"euler"] * 3, NFE=[5] * 3)
            self.close(found, euler(x, 9, 5))

        # Of 64 samples a call, 1000 a request, 1000 evaluations each: 47,000 calls.
        large = {"COUNT": 1000, "CLASS": 9, "SOLVER": b"euler", "NFE": 1000}
        self.assertLess(self.beside(large, lambda: self.calls_of("continuous", small)), 15)

    def test_of_a_large_request_beside_small_ones(self):
        large = {"SEED": 4, "COUNT": 100, "CLASS": 8, "SOLVER": b"euler", "NFE": 10}
        alone, _ = Client(server).infer("continuous", **large)
        wait, x, ends = Client(server, "http").start("continuous", **large), noise(1, seed=9), threading.Event()

        def small():
            client = Client(server)
            while not ends.is_set():
                self.close(client.infer("continuous", NOISE=x, CLASS=8, SOLVER=b"euler", NFE=4)[0], euler(x, 8, 4))

        thread = threading.Thread(target=small)
        thread.start()
        self.close(wait()[0], alone)
        ends.set()
        thread.join()

    def test_of_requests_of_several_solvers(self):
        """Samples of one request that have begun and ones that have not, in any order of their ends."""
        x, nfes = noise(5, seed=10), [9, 2, 30, 1, 4]
        large = {"COUNT": 1000, "CLASS": 9, "SOLVER": b"euler", "NFE": 1000}

        def small():
            found, said = Client(server).infer("continuous", NOISE=x, CLASS=[1] * 5, SOLVER=[b"euler"] * 5, NFE=nfes)
            for row, nfe in enumerate(nfes):
                self.close(found[row : row + 1], euler(x[row : row + 1], 1, nfe))
            self.assertEqual(int(said["nfe"]), 30)

        self.beside(large, small, count=1)


class Cancellation(Case):
    def test_stops_the_network_calls(self):
        client = Client(server, "grpc")

        def cancelled():
            wait = client.start("continuous", NOISE=noise(1), CLASS=9, SOLVER=b"euler", NFE=500)
            time.sleep(0.5)
            wait.cancel()
            with self.assertRaises(InferenceServerException):
                wait()
            time.sleep(0.3)

        calls = self.calls_of("continuous", cancelled)
        self.assertGreater(calls, 0)
        self.assertLess(calls, 100)
        self.assertGreater(server.metric("bespoke_cancelled_total", "continuous"), 0)
        self.assertEqual(server.metric("bespoke_active_rows", "continuous"), 0)

    def test_leaves_the_others_as_they_are(self):
        client = Client(server, "grpc")
        x = noise(1, seed=6)
        other = client.start("continuous", NOISE=x, CLASS=8, SOLVER=b"euler", NFE=40)
        wait = client.start("continuous", NOISE=noise(1), CLASS=9, SOLVER=b"euler", NFE=500)
        time.sleep(0.2)
        wait.cancel()
        self.close(other()[0], euler(x, 8, 40))

    def test_of_a_waiting_request_costs_nothing(self):
        client = Client(server, "grpc")
        first = client.start("one-row", NOISE=noise(1), CLASS=9, SOLVER=b"euler", NFE=40)
        time.sleep(0.1)

        def cancelled():
            wait = client.start("one-row", NOISE=noise(1), CLASS=9, SOLVER=b"euler", NFE=500)
            time.sleep(0.1)
            wait.cancel()
            first()
            time.sleep(0.3)

        self.assertLess(self.calls_of("one-row", cancelled), 42)


class Streaming(Case):
    def stream(self, model, preview_every=None, **values):
        responses, client = queue.Queue(), server.grpc()
        client.start_stream(lambda result, error: responses.put((result, error)))
        own = {} if preview_every is None else {"preview_every": preview_every}
        client.async_stream_infer(model, tensors("grpc", **values), enable_empty_final_response=True, parameters=own)
        found = []
        while True:
            result, error = responses.get(timeout=60)
            if error is not None:
                client.stop_stream()
                raise error
            if result.as_numpy("SAMPLE") is not None:
                found.append((result.as_numpy("SAMPLE"), parameters(result)))
            if result.get_response().parameters["triton_final_response"].bool_param:
                client.stop_stream()
                return found

    def test_sends_predictions_and_then_the_sample(self):
        x = noise(2, seed=2)
        final, predictions = euler(x, 4, 7, predictions=True)
        found = self.stream("stream", NOISE=x, CLASS=[4, 4], SOLVER=[b"euler"] * 2, NFE=[7, 7])
        self.assertEqual([said["evaluations"] for _, said in found], [2, 4, 6, 7])
        self.assertEqual([said["final"] for _, said in found], [False, False, False, True])
        for (sample, _), expected in zip(found, [predictions[1], predictions[3], predictions[5], final]):
            self.close(sample, expected)

    def test_every_request_chooses_how_often(self):
        for every, expected in [(3, [3, 6, 7]), (1, [1, 2, 3, 4, 5, 6, 7]), (0, [7])]:
            found = self.stream("stream", every, NOISE=noise(1), SOLVER=b"euler", NFE=7)
            self.assertEqual([said["evaluations"] for _, said in found], expected)
        self.assertEqual(len(self.stream("quiet", NOISE=noise(1))), 1)

    def test_rows_of_different_length_end_on_their_own(self):
        x = noise(2, seed=3)
        found = self.stream("stream", 1, NOISE=x, CLASS=[1, 1], SOLVER=[b"euler"] * 2, NFE=[2, 4])
        short, long = euler(x[:1], 1, 2), euler(x[1:], 1, 4, predictions=True)
        self.assertEqual(len(found), 4)
        self.close(found[2][0], np.concatenate([short, long[1][2]]))
        self.close(found[3][0], np.concatenate([short, long[0]]))

    def test_over_http(self):
        body = json.dumps({"SEED": [[4]], "SOLVER": [["euler"]], "NFE": [[5]], "CLASS": [[2]]}).encode()
        url = f"http://127.0.0.1:{server.ports['http']}/v2/models/stream/generate_stream"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            events = [json.loads(line[6:]) for line in answer.read().decode().splitlines() if line.startswith("data: ")]
        self.assertEqual([event["evaluations"] for event in events], [2, 4, 5])
        single, _ = Client(server).infer("continuous", SEED=4, SOLVER=b"euler", NFE=5, CLASS=2)
        self.close(np.array(events[-1]["SAMPLE"]).reshape(1, 4), single)

    def test_bad_requests_are_refused(self):
        with self.assertRaises(InferenceServerException) as caught:
            self.stream("stream", NOISE=noise(1), CLASS=44)
        self.assertIn("CLASS is 44", str(caught.exception))
        with self.assertRaises(InferenceServerException) as caught:
            self.stream("stream", -3, NOISE=noise(1))
        self.assertIn("preview_every", str(caught.exception))

    def test_a_dropped_stream_stops_the_network_calls(self):
        def dropped():
            responses, client = queue.Queue(), server.grpc()
            client.start_stream(lambda result, error: responses.put((result, error)))
            client.async_stream_infer("stream", tensors("grpc", NOISE=noise(1), CLASS=9, SOLVER=b"euler", NFE=500))
            responses.get(timeout=60)
            client.stop_stream(cancel_requests=True)
            time.sleep(0.5)

        self.assertLess(self.calls_of("stream", dropped), 100)


class Official(Case):
    def test_statistics(self):
        client = server.http()

        def counts():
            stats = client.get_inference_statistics("whole")["model_stats"][0]
            own = stats["inference_stats"]
            batches = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]}
            return np.array([own["success"]["count"], own["fail"]["count"], stats["execution_count"], batches.get(3, 0)])

        before = counts()
        Client(server).infer("whole", NOISE=noise(3), SOLVER=[b"euler"] * 3, NFE=[5] * 3)
        with self.assertRaises(InferenceServerException):
            Client(server).infer("whole", NOISE=noise(1), NFE=0)
        # Each evaluation of a batch is an execution. What failed is counted after the client is told.
        expected, until = [1, 1, 5, 5], time.monotonic() + 10
        while (counts() - before).tolist() != expected and time.monotonic() < until:
            time.sleep(0.05)
        np.testing.assert_array_equal(counts() - before, expected)

    def test_metrics_count_calls_rows_and_time(self):
        names = [CALLS, "bespoke_network_rows_total", "bespoke_network_seconds_total"]
        before = [server.metric(name, "whole") for name in names]
        Client(server).infer("whole", NOISE=noise(3), CLASS=[9] * 3)
        calls, rows, seconds = [server.metric(name, "whole") - start for name, start in zip(names, before)]
        self.assertEqual((calls, rows), (10, 30))
        self.assertGreater(seconds, 0.2)

    def test_warm_up_ran_before_the_first_request(self):
        self.assertEqual(server.metric(CALLS, "warm"), 10)

    def test_the_configuration_is_completed(self):
        config = server.http().get_model_config("continuous")
        self.assertEqual(sorted(tensor["name"] for tensor in config["input"]),
                         ["CLASS", "COUNT", "GUIDANCE_SCALE", "NFE", "NOISE", "SEED", "SOLVER"])  # fmt: skip
        self.assertTrue(all(tensor["optional"] for tensor in config["input"]))
        self.assertEqual((config["max_batch_size"], config["output"][0]["dims"]), (64, [4]))
        self.assertIn("dynamic_batching", config)


if __name__ == "__main__":
    unittest.main()
