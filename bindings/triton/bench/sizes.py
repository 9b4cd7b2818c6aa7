"""Poisson arrivals of three sizes of samples: how long each waits beside the others, over how long it waits alone at the
same load.

    python sizes.py [--seconds 20] [--load 0.5]

The load is a share of the requests a second that the server answers at most, of those sizes: samples of several sizes
cannot share a call of the network, so that it answers fewer of a mixture than of one size.
"""

import argparse
import threading
import time

import numpy as np
from client import Client
from models import MODELS, Repository
from server import Server

WIDTHS = (8, 16, 24)
NFE = 8
CARD = "photos-wide"


def request(width, rng):
    return {"NOISE": rng.standard_normal((1, 3, 8, width)).astype(np.float32), "photo": rng.integers(0, 2, (1, 1))}


def capacity(server, widths, seconds, concurrency=15):
    """Requests a second of these sizes, as many of each, with that many under way."""
    done, until = [0] * concurrency, time.perf_counter() + seconds

    def ask(place):
        client, rng = Client(server, "grpc"), np.random.default_rng(place)
        given = [request(width, rng) for width in widths]
        while time.perf_counter() < until:
            client.infer("wide", **given[(place + done[place]) % len(given)])
            done[place] += 1

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def latencies(server, rates, seconds, seed):
    """Of Poisson arrivals at `rates` of each width, the seconds that each took, by width."""
    rng = np.random.default_rng(seed)
    client, lock = Client(server, "grpc"), threading.Lock()
    found = {width: [] for width in rates}
    arrivals = sorted(
        (float(at), width)
        for width, rate in rates.items()
        for at in np.cumsum(rng.exponential(1 / rate, max(1, int(rate * seconds))))
    )
    pending, start = [], time.perf_counter()

    def finish(wait, due, width):
        wait()
        with lock:
            found[width].append(time.perf_counter() - due)

    for at, width in arrivals:
        time.sleep(max(0.0, start + at - time.perf_counter()))
        thread = threading.Thread(target=finish, args=(client.start("wide", **request(width, rng)), start + at, width))
        thread.start()
        pending.append(thread)
    for thread in pending:
        thread.join()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--load", type=float, default=0.5, help="share of the requests a second at most")
    arguments = parser.parse_args()
    repository = Repository()
    try:
        files = [MODELS / f"{CARD}.json", MODELS / f"{CARD}.pt"]
        repository.add("wide", {"card": f"{CARD}.json", "solver": f"midpoint@{NFE}", "max_rows": 64}, files=files)
        with Server(repository.folder) as server:
            most = {width: capacity(server, [width], arguments.seconds / 3) for width in WIDTHS}
            mixed = capacity(server, WIDTHS, arguments.seconds / 3)
            print("requests a second at most:", *(f"{most[w]:.0f} of width {w}," for w in WIDTHS), f"{mixed:.0f} of all")
            alone = {w: latencies(server, {w: arguments.load * most[w]}, arguments.seconds, w)[w] for w in WIDTHS}
            rates = dict.fromkeys(WIDTHS, arguments.load * mixed / len(WIDTHS))
            together = latencies(server, rates, arguments.seconds * len(WIDTHS), 0)
            print(f"load {arguments.load}, nfe {NFE}, ms      alone: mean   p99   together: mean   p99   ratio of means")
            for width in WIDTHS:
                numbers = [1e3 * value for of in (alone, together) for value in (np.mean(of[width]), np.percentile(of[width], 99))]
                print("  width {:3} {:29.1f} {:5.1f} {:16.1f} {:5.1f} {:16.2f}".format(width, *numbers, numbers[2] / numbers[0]))
    finally:
        repository.close()


if __name__ == "__main__":
    main()
