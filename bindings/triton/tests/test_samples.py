"""Samples of the digits over HTTP and gRPC against `bespoke sample`; mixed batches; bad requests."""

import unittest

import numpy as np
from client import Client
from repository import MODELS, Repository, digits_noise, sampled
from server import Server
from tritonclient.utils import InferenceServerException

CARD = "digits-fm-ot"
TOLERANCE = 1e-5


def setUpModule():
    global repository, server, theta, ladder
    repository = Repository()
    unittest.addModuleCleanup(repository.close)
    theta, ladder = repository.files / "theta.json", repository.files / "ladder.json"
    repository.add_digits("digits")
    repository.add_digits("digits-whole", {"batching": "whole", "max_rows": 256, "guidance_scale": 1.5})
    delayed = "max_batch_size: 64 dynamic_batching { preferred_batch_size: [ 12 ] max_queue_delay_microseconds: 2000000 }"
    repository.add_digits("digits-delayed", {"batching": "whole"}, delayed + tensors(batched=True))
    repository.add_digits("digits-unbatched", {"solver": "ladder@6"}, tensors(batched=False))
    files = [MODELS / "digits-fm-ot-onnx.json", MODELS / "digits-fm-ot.onnx", theta]
    repository.add_package("package", {"solver": "euler@4"})
    repository.add("digits-onnx", {"card": "digits-fm-ot-onnx.json", "thetas": "theta.json"}, files=files)
    server = unittest.enterModuleContext(Server(repository.folder))


def tensors(batched):
    """The tensors written out, as a server without auto-completion needs them."""
    first = "" if batched else "-1, "
    names = {"SEED": "INT64", "COUNT": "INT64", "CLASS": "INT64", "GUIDANCE_SCALE": "FP32", "NFE": "INT64", "SOLVER": "STRING"}
    inputs = [f'{{ name: "{name}" data_type: TYPE_{dtype} dims: [ {first}1 ] optional: true }}' for name, dtype in names.items()]
    inputs.append(f'{{ name: "NOISE" data_type: TYPE_FP32 dims: [ {first}1, 8, 8 ] optional: true }}')
    output = f'output [ {{ name: "SAMPLE" data_type: TYPE_FP32 dims: [ {first}1, 8, 8 ] }} ]'
    return f"\ninput [ {', '.join(inputs)} ]\n{output}\n"


class OverBoth(unittest.TestCase):
    def clients(self):
        return Client(server, "http"), Client(server, "grpc")

    def close(self, found, expected):
        self.assertEqual(found.shape, expected.shape)
        self.assertLess(np.abs(found - expected).max(), TOLERANCE)


class Samples(OverBoth):
    def test_noise_gives_what_the_command_line_draws(self):
        noise = digits_noise(12)
        expected = sampled(CARD, theta, noise)
        for client in self.clients():
            found, said = client.infer("digits", NOISE=noise)
            self.close(found, expected)
            self.assertEqual((said["nfe"], said["solver"]), (8, "theta"))
            self.assertGreater(said["network_us"], 0)
            self.assertGreater(said["solver_us"], 0)

    def test_a_network_in_onnx_runtime_gives_the_same(self):
        expected = sampled(CARD, theta, digits_noise(12), guidance_scale=2)
        for client in self.clients():
            self.close(client.infer("digits-onnx", NOISE=digits_noise(12), GUIDANCE_SCALE=[2] * 12, CLASS=[i % 10 for i in range(12)])[0], expected)

    def test_a_network_in_a_package_is_run(self):
        noise = np.random.default_rng(6).standard_normal((5, 3)).astype(np.float32)
        expected = noise
        for t in (0, 0.25, 0.5, 0.75):
            expected = expected + 0.25 * np.cos(expected) * (t + 0.5)
        for client in self.clients():
            self.close(client.infer("package", NOISE=noise)[0], expected)

    def test_seed_and_count_give_the_noise_of_the_command_line(self):
        expected = sampled(CARD, theta, seed=7, count=5)
        for client in self.clients():
            self.close(client.infer("digits", SEED=7, COUNT=5)[0], expected)

    def test_without_inputs_there_is_one_sample_of_seed_zero(self):
        expected = sampled(CARD, theta, seed=0, count=1)
        for client in self.clients():
            self.close(client.infer("digits")[0], expected)

    def test_rows_have_seeds_counts_classes_and_solvers_of_their_own(self):
        first = sampled(CARD, f"{ladder}@6", seed=3, count=2, of_class=4, guidance_scale=2.5)
        second = sampled(CARD, "dpm++2m@7", seed=11, count=3, of_class=9, guidance_scale=1)
        for client in self.clients():
            found, said = client.infer("digits", SEED=[3, 11], COUNT=[2, 3], CLASS=[4, 9], GUIDANCE_SCALE=[2.5, 1],
                                       SOLVER=[b"ladder", b"dpm++2m@7"], NFE=[6, 7])  # fmt: skip
            self.close(found, np.concatenate([first, second]))
            self.assertEqual((said["nfe"], said["solver"]), (7, "ladder, dpm++2m"))

    def test_every_solver_that_is_offered(self):
        noise = digits_noise(3, seed=1)
        cases = [
            (theta, 8, "theta", {}), (f"{ladder}@10", 10, "ladder", {"SOLVER": b"ladder"}),
            (f"{ladder}@4", 4, "ladder", {"SOLVER": b"ladder@4"}), (f"{ladder}@9", 6, "ladder", {"SOLVER": b"ladder@9"}),
            (f"{ladder}@5", 4, "ladder", {"SOLVER": b"ladder", "NFE": 5}), (theta, 8, "theta", {"NFE": 100}), ("euler@5", 5, "euler", {"SOLVER": b"euler", "NFE": 5}),
            ("midpoint@6:cosine", 6, "midpoint:cosine", {"SOLVER": b"midpoint@6:cosine"}),
        ]  # fmt: skip
        for solver, nfe, name, values in cases:
            expected = sampled(CARD, solver, noise)
            for client in self.clients():
                columns = {key: [value] * 3 for key, value in values.items()}
                found, said = client.infer("digits", NOISE=noise, **columns)
                self.close(found, expected)
                self.assertEqual((said["nfe"], said["solver"]), (nfe, name))

    def test_the_models_own_defaults(self):
        noise = digits_noise(4, seed=2)
        guided, sixth = sampled(CARD, theta, noise, guidance_scale=1.5), sampled(CARD, f"{ladder}@6", noise)
        for client in self.clients():
            self.close(client.infer("digits-whole", NOISE=noise)[0], guided)
            self.close(client.infer("digits-unbatched", NOISE=noise)[0], sixth)

    def test_more_samples_than_rows(self):
        # COUNT is above max_rows, 64: the rest joins as the first leave.
        self.close(Client(server).infer("digits", SEED=5, COUNT=150)[0], sampled(CARD, theta, seed=5, count=150))


class Mixed(OverBoth):
    def requests(self, noise):
        solvers = [(b"theta", 8), (b"ladder", 4), (b"ladder", 10), (b"euler", 3), (b"heun", 6)]
        for i in range(len(noise)):
            solver, nfe = solvers[i % 5]
            yield {"NOISE": noise[i : i + 1], "CLASS": i % 10, "GUIDANCE_SCALE": (1, 2, 0, 3.5)[i % 4], "SOLVER": solver, "NFE": nfe}

    def check(self, model, most):
        """Each request's sample is what it is alone; all together take `most` of their own network calls."""
        requests = list(self.requests(digits_noise(40, seed=3)))
        for client in (Client(server, "http", concurrency=40), Client(server, "grpc")):
            alone = [client.infer("digits", **request)[0] for request in requests]
            calls, before = "bespoke_network_calls_total", server.metric("bespoke_network_calls_total", model)
            pending = [client.start(model, **request) for request in requests]
            for request, wait, expected in zip(requests, pending, alone):
                found, said = wait()
                self.close(found, expected)
                self.assertEqual(said["nfe"], request["NFE"])
            spent = server.metric(calls, model) - before
            self.assertLessEqual(spent, most * sum(request["NFE"] for request in requests))

    def test_mixed_requests_are_what_they_are_alone(self):
        self.check("digits", 1.0)  # how many meet in a call depends on when they arrive

    def test_mixed_requests_of_one_execute(self):
        self.check("digits-delayed", 0.5)

    def test_one_execute_calls_the_network_as_often_as_its_longest_request(self):
        client = Client(server, "http", concurrency=8)
        noise = digits_noise(8, seed=4)
        before = server.metric("bespoke_network_calls_total", "digits-delayed")
        pending = [client.start("digits-delayed", NOISE=noise[i : i + 1], SOLVER=b"euler", NFE=2 + i) for i in range(8)]
        for wait in pending:
            wait()
        self.assertEqual(server.metric("bespoke_network_calls_total", "digits-delayed") - before, 9)


class BadRequests(OverBoth):
    """Each is refused by name, and what came with it in the same Execute succeeds."""

    def refused(self, model, words, **values):
        for client in self.clients():
            with self.assertRaises(InferenceServerException) as caught:
                client.infer(model, **values)
            for word in words:
                self.assertIn(word, str(caught.exception))

    def test_each_is_named(self):
        noise = digits_noise(1)
        bad = noise.copy()
        bad[0, 0, 3, 3] = np.nan
        cases = [
            (["NOISE", "nan"], {"NOISE": bad}),
            (["NOISE", "SEED"], {"NOISE": noise, "SEED": 1}),
            (["CLASS is 11", "0 to 9"], {"CLASS": 11}),
            (["CLASS is -1", "0 to 9"], {"CLASS": -1}),
            (["COUNT is 0", "1 to 1024"], {"COUNT": 0}),
            (["COUNT is 1000000000", "1 to 1024"], {"COUNT": 10**9}),
            (["COUNT is 1400 in all", "1 to 1024"], {"COUNT": [700, 700], "SEED": [1, 2]}),
            (["NFE is 3", "at least 4", "ladder"], {"SOLVER": b"ladder", "NFE": 3}),
            (["NFE is 7", "at least 8", "theta"], {"NFE": 7}),
            (["nfe is 7", "multiple of 2"], {"SOLVER": b"midpoint", "NFE": 7}),
            (["NFE is 0"], {"SOLVER": b"euler", "NFE": 0}),
            (["NFE is 8", "6, as SOLVER says"], {"SOLVER": b"ladder@6", "NFE": 8}),
            (["nosuch", "euler"], {"SOLVER": b"nosuch", "NFE": 7}),
            (["euler", "midpoint@10"], {"SOLVER": b"euler"}),
            (["grid"], {"SOLVER": b"euler@4:nogrid"}),
            (["GUIDANCE_SCALE is inf"], {"GUIDANCE_SCALE": np.inf}),
        ]
        for words, values in cases:
            with self.subTest(values=str(values)):
                self.refused("digits", words, **values)

    def test_a_solver_that_is_no_text_is_quoted_and_cut(self):
        for value, words in [
            (b"mid\xff\xfepoint@4", ['SOLVER is "mid', 'point@4", expected UTF-8']),
            (b"midpoint@4\0x", ['SOLVER is "midpoint@4\\u0000x", expected text without NUL']),
            (b"x" * (2 << 20), ['SOLVER is "xxx', 'xxx...", expected at most 32768 bytes']),
            ("\u00e9".encode() * 1000 + b"@4", ['SOLVER "\u00e9', "\u00e9..."]),
            (b"euler@" + b"4" * 20_000, ['SOLVER "euler@444', '444..."']),
            (b"euler@4:" + b"0.1," * 5_000, ["SOLVER", "grid"]),
        ]:
            for client in self.clients():
                with self.subTest(value=value[:20], protocol=client.protocol):
                    with self.assertRaises(InferenceServerException) as caught:
                        client.infer("digits", SOLVER=value)
                    message = caught.exception.message()
                    for word in words:
                        self.assertIn(word, message)
                    self.assertLess(len(message), 1500)

    def test_wrong_shapes_and_dtypes(self):
        self.refused("digits", ["NOISE", "shape"], NOISE=digits_noise(2)[:, :, :7])
        self.refused("digits-unbatched", ["shape is", "rows, as the inputs before it"], NOISE=digits_noise(2), CLASS=[1, 2, 3])
        import tritonclient.http as http

        tensor = http.InferInput("NOISE", [1, 1, 8, 8], "FP64")
        tensor.set_data_from_numpy(digits_noise(1).astype(np.float64))
        with self.assertRaises(InferenceServerException) as caught:
            server.http().infer("digits", [tensor])
        self.assertIn("FP64", str(caught.exception))
        short = http.InferInput("NOISE", [1, 1, 8, 8], "FP32")
        short.set_data_from_numpy(digits_noise(1))
        short._raw_data = short._raw_data[:100]
        short._parameters["binary_data_size"] = 100
        with self.assertRaises(InferenceServerException):
            server.http().infer("digits", [short])
        self.close(Client(server).infer("digits", SEED=1)[0], sampled(CARD, theta, seed=1, count=1))

    def test_the_others_of_the_same_execute_succeed(self):
        client = Client(server, "http", concurrency=12)
        nfes = [8, 7, 8, 9, 8, 8, 0, 8, 8, -3, 8, 8]
        noise = digits_noise(12, seed=5)
        expected = sampled(CARD, theta, noise)
        noise[7] = np.inf
        executions = self.statistics()
        pending = [client.start("digits-delayed", NOISE=noise[i : i + 1], NFE=nfe, CLASS=i % 10) for i, nfe in enumerate(nfes)]
        for i, (nfe, wait) in enumerate(zip(nfes, pending)):
            if nfe >= 8 and i != 7:  # at most nine: the theta's eight
                self.close(wait()[0], expected[i : i + 1])
            else:
                with self.assertRaises(InferenceServerException) as caught:
                    wait()
                self.assertIn("NOISE is inf" if i == 7 else f"NFE is {nfe}", str(caught.exception))
        # All twelve came in one Execute: the network was called for the good ones together.
        self.assertEqual(self.statistics() - executions, 8)

    def statistics(self):
        stats = server.http().get_inference_statistics("digits-delayed")["model_stats"][0]
        return stats["execution_count"]


if __name__ == "__main__":
    unittest.main()
