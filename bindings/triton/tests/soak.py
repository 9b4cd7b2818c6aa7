"""Load: many clients, random parameters, texts and sizes, bad requests, cancellations; every sample is checked.

    python soak.py --seconds 600 --clients 64
"""

import argparse
import random
import sys
import threading
import time

import conditioned
import numpy as np
from client import Client
from repository import Repository, digits_noise, sampled
from server import Server
from tritonclient.utils import InferenceServerException

CARD, MODEL = "digits-fm-ot", "digits"
# The model of named inputs and sizes, and its share of the requests.
CONDITIONED, SHARE = "conditioned", 0.25
BAD = [
    ({"NFE": 3, "SOLVER": b"ladder"}, "NFE is 3"), ({"CLASS": 12}, "CLASS is 12"), ({"COUNT": 0}, "COUNT is 0"),
    ({"SOLVER": b"nosuch@4"}, "nosuch"), ({"COUNT": 10**9}, "COUNT is 1000000000"),
    ({"NOISE": np.full((1, 1, 8, 8), np.nan)}, "NOISE is"),
]  # fmt: skip
POOL = 40
LARGEST = 6
ALLOWED_MIB = 64
# A network rounds otherwise in a batch of another size: 6e-6 on one CPU, 1.2e-5 on another. A sample of another noise,
# class, solver or scale is off by .037 and more.
ROUNDING = 1e-4


class Truth:
    """A pool of noises, sample i of class i mod 10, each drawn alone on a quiet server: nothing joins, nothing leaves.

    One kind of them is held against the command line, the others are in test_samples.
    """

    def __init__(self, repository, server):
        self.noise = digits_noise(POOL, seed=9)
        names = [(b"theta", 8), (b"dpm++2m", 5), (b"euler", 3), (b"ladder", 4), (b"ladder", 6), (b"ladder", 10)]
        self.kinds = [(*name, scale) for name in names for scale in (1.0, 2.5)]
        client = Client(server)
        self.samples = {kind: np.concatenate([self.alone(client, kind, i) for i in range(POOL)]) for kind in self.kinds}
        drawn = sampled(CARD, repository.files / "theta.json", self.noise, guidance_scale=2.5)
        assert np.abs(self.samples[b"theta", 8, 2.5] - drawn).max() < 1e-5

    def alone(self, client, kind, i):
        solver, nfe, scale = kind
        values = {"NOISE": self.noise[i : i + 1], "CLASS": i % 10, "SOLVER": solver, "NFE": nfe, "GUIDANCE_SCALE": scale}
        return client.infer(MODEL, **values)[0]

    def draw(self, random):
        """A request and its samples."""
        rows = random.sample(range(POOL), random.randint(1, LARGEST))
        kinds = [random.choice(self.kinds) for _ in rows]
        values = {
            "NOISE": self.noise[rows], "CLASS": [row % 10 for row in rows], "SOLVER": [kind[0] for kind in kinds],
            "NFE": [kind[1] for kind in kinds], "GUIDANCE_SCALE": [kind[2] for kind in kinds],
        }  # fmt: skip
        return values, np.stack([self.samples[kind][row] for kind, row in zip(kinds, rows)])


class Clients:
    """Clients that ask one request after the other until it is over, and what was wrong."""

    def __init__(self, server, truth):
        self.server, self.truth = server, truth
        self.lock = threading.Lock()
        self.wrong = []

    def client(self, number):
        random_ = random.Random(number)
        client = Client(self.server, "grpc" if number % 2 else "http")
        while not self.over() and len(self.wrong) < 10:
            try:
                self.one(client, random_)
            except Exception as error:  # whatever it is, it is a finding
                with self.lock:
                    self.wrong.append(repr(error))

    def draw(self, random_):
        """A model, a request to it, and what it answers."""
        if random_.random() >= SHARE:
            return MODEL, *self.truth.draw(random_)
        sizes = {"frames": random_.choice([3, 8, 20]), "tokens": random_.randint(1, 4), "rows": random_.randint(1, 3)}
        values = conditioned.order(np.random.default_rng(random_.randrange(2**32)), **sizes)
        return CONDITIONED, values, conditioned.euler(values)

    def check(self, found, expected):
        if found.shape != expected.shape or not np.abs(found - expected).max() < ROUNDING:
            raise AssertionError(f"a wrong sample: {np.abs(found - expected).max()}")


class Load(Clients):
    def __init__(self, server, truth, arguments):
        super().__init__(server, truth)
        self.arguments, self.times = arguments, []
        self.counts = {"right": 0, "refused": 0, "cancelled": 0, "samples": 0}
        self.end = time.monotonic() + arguments.seconds

    def over(self):
        return time.monotonic() >= self.end

    def count(self, kind, by=1):
        with self.lock:
            self.counts[kind] += by

    def one(self, client, random_):
        if random_.random() < 0.01:
            self.bad(client, *random_.choice(BAD))
        elif client.protocol == "grpc" and random_.random() < 0.03:
            self.cancelled(client, random_)
        else:
            model, values, expected = self.draw(random_)
            start = time.monotonic()
            found, _ = client.infer(model, **values)
            with self.lock:
                self.times.append(time.monotonic() - start)
            self.check(found, expected)

    def check(self, found, expected):
        super().check(found, expected)
        self.count("right")
        self.count("samples", len(found))

    def bad(self, client, values, words):
        try:
            client.infer(MODEL, **values)
        except InferenceServerException as error:
            if words not in str(error):
                raise
            return self.count("refused")
        raise AssertionError(f"{values} was not refused")

    def cancelled(self, client, random_):
        values, expected = self.truth.draw(random_)
        wait = client.start(MODEL, **values)
        time.sleep(random_.random() * 0.05)
        wait.cancel()
        try:
            self.check(wait()[0], expected)
        except InferenceServerException as error:
            if "cancel" not in str(error).lower():
                raise
            self.count("cancelled")

    def run(self):
        """Resident MiB after a fifth of the time, and at the end."""
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(self.arguments.clients)]
        for thread in threads:
            thread.start()
        time.sleep(self.arguments.seconds / 5)
        early = self.server.resident_mib()
        for thread in threads:
            thread.join()
        return early, self.server.resident_mib()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    repository = Repository()
    try:
        repository.add_digits(MODEL)
        repository.add_library(CONDITIONED, conditioned.PARAMETERS, card=conditioned.card())
        with Server(repository.folder) as server:
            truth = Truth(repository, server)
            load = Load(server, truth, arguments)
            work = lambda: np.array([server.metric(f"bespoke_network_{what}_total", MODEL) for what in ("rows", "calls")])
            before = work()
            started = time.monotonic()
            early, late = load.run()
            seconds = time.monotonic() - started
            rows, calls = work() - before
            time.sleep(0.5)
            left = sum(server.metric("bespoke_active_rows", model) for model in (MODEL, CONDITIONED))
    finally:
        repository.close()
    p50, p99 = np.percentile(load.times, [50, 99]) * 1e3
    print(f"{seconds:.0f} s, {arguments.clients} clients: {load.counts}")
    print(f"{load.counts['samples'] / seconds:.0f} samples/s, {load.counts['right'] / seconds:.0f} requests/s, "
          f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {rows / calls:.1f} samples a network call")  # fmt: skip
    print(f"resident {early:.0f} MiB after a fifth, {late:.0f} MiB at the end")
    problems = list(load.wrong)
    if late - early > ALLOWED_MIB:
        problems.append(f"memory grew by {late - early:.0f} MiB")
    if left != 0:
        problems.append(f"{left} samples are still in the batch")
    if load.counts["right"] == 0:
        problems.append("no request succeeded")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
