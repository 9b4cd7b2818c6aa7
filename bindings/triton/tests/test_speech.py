"""Text to speech on Triton, examples/hosts/tts/triton: ensembles of an encoder, the flow and a vocoder, for requests of
many lengths at a time."""

import sys
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np
from server import ROOT, Server
from tritonclient.utils import InferenceServerException

sys.path.append(str(ROOT / "examples" / "hosts" / "tts" / "triton"))

import serve

THETA = "velocity-ladder@{}"


def setUpModule():
    global server, requests, truth
    folder = unittest.enterModuleContext(tempfile.TemporaryDirectory())
    server = unittest.enterModuleContext(Server(serve.repository(Path(folder))))
    requests = serve.all_requests()[::5]
    truth = serve.reference(server, requests)


class Speech(unittest.TestCase):
    def test_euler_here_is_the_loop_in_python(self):
        for request in requests:
            ours, theirs = (serve.ask(server.grpc(), model, request, "euler@5")[1] for model in ("speech", "speech-loop"))
            self.assertEqual(ours.shape, theirs.shape)
            self.assertLess(np.abs(ours - theirs).max(), 1e-3)

    def test_a_theta_is_closer_than_euler_with_twice_the_evaluations(self):
        for nfe in (4, 5, 8):
            with self.subTest(nfe=nfe):
                theta = serve.rmse(server, "speech", THETA.format(nfe), requests, truth)
                euler = serve.rmse(server, "speech-loop", f"euler@{2 * nfe}", requests, truth)
                self.assertLess(theta, euler)

    def test_requests_of_many_lengths_at_a_time_are_what_they_are_alone(self):
        alone = [serve.ask(server.grpc(), "speech", request, THETA.format(5)) for request in requests]
        self.assertGreater(len({len(features) for _, features in alone}), 3)
        found = {}

        def client(i):
            found[i] = serve.ask(server.grpc(), "speech", requests[i % len(requests)], THETA.format(5))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(3 * len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), len(threads))
        for i, (samples, features) in found.items():
            expected_samples, expected = alone[i % len(requests)]
            self.assertEqual(len(samples), len(expected_samples))
            self.assertLess(np.abs(features - expected).max(), 1e-3)

    def test_what_goes_wrong_is_said(self):
        for request, solver, said in [
            (serve.Request("123"), THETA.format(5), "nothing in '123' can be said"),
            (serve.Request("hello", prompt=99), THETA.format(5), "PROMPT is 99, expected 0 to"),
            (serve.Request("a" * 401), THETA.format(5), "TEXT has 401 characters, expected 400 at most"),
            (serve.Request("hello"), "absent@5", "absent"),
        ]:
            with self.subTest(said=said), self.assertRaisesRegex(InferenceServerException, said):
                serve.ask(server.grpc(), "speech", request, solver)

    def test_a_scale_that_is_no_number_is_refused_by_either(self):
        for model, solver in [("speech", THETA.format(5)), ("speech-loop", "euler@5")]:
            for scale in (float("nan"), float("inf")):
                with self.assertRaisesRegex(InferenceServerException, f"GUIDANCE_SCALE is {scale}, expected a finite number"):
                    serve.ask(server.grpc(), model, serve.Request("hello"), solver, scale)


if __name__ == "__main__":
    unittest.main()
