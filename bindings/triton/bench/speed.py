"""The backend beside the bare network, Python loops, and itself without continuous batching: ratios of one run.

    python speed.py [--seconds 10]
"""

import argparse
import functools
import os
import threading
import time

import models
import numpy as np
from client import Client, tensors
from repository import digits_noise
from server import BUILD, Server

# Of the models in turn, so that a machine that slows down slows all of them.
ROUNDS = 5


def overhead(server):
    """Requests of 16 samples, one after the other: seconds in the network, in the backend, on the server, at the client."""
    client, noise = Client(server), digits_noise(16)
    values = {"NOISE": noise, "SOLVER": [b"midpoint"] * 16, "NFE": [models.NFE] * 16}
    for _ in range(20):
        client.infer("own", **values)

    def seconds():
        statistics = server.http().get_inference_statistics("own")["model_stats"][0]["inference_stats"]
        network, solver = (server.metric(f"bespoke_{part}_seconds_total", "own") for part in ("network", "solver"))
        return np.array([network, network + solver, statistics["success"]["ns"] * 1e-9, time.perf_counter()])

    before = seconds()
    for _ in range(200):
        client.infer("own", **values)
    return seconds() - before


def throughput(server, model, seconds, concurrency=16):
    """Samples a second with that many requests under way, of one sample each; each place asks again when it is answered."""
    noise, client = digits_noise(concurrency), server.grpc()
    over, done, failed = threading.Semaphore(0), [], []
    solver = {} if model == "loop" else {"SOLVER": b"midpoint"}
    inputs = [tensors("grpc", NOISE=noise[i : i + 1], CLASS=i % 10, NFE=models.NFE, **solver) for i in range(concurrency)]

    def ask(place):
        client.async_infer(model, inputs[place], functools.partial(finish, place))

    def finish(place, result, error):
        (done if error is None else failed).append(error)
        if error is None and time.perf_counter() < start + seconds:
            ask(place)
        else:
            over.release()

    start = time.perf_counter()
    for place in range(concurrency):
        ask(place)
    for _ in range(concurrency):
        over.acquire()
    if failed:
        raise failed[0]
    return len(done) / (time.perf_counter() - start)


def arrivals(server, model, rate, seconds, seed=0):
    """Poisson arrivals of mixed nfe: requests a second and latencies in ms."""
    random = np.random.default_rng(seed)
    client, noise, latencies, lock = Client(server, "grpc"), digits_noise(1), [], threading.Lock()
    pending, start, at = [], time.perf_counter(), 0.0

    def finish(wait, due):
        wait()
        with lock:
            latencies.append(time.perf_counter() - due)

    while at < seconds:
        at += random.exponential(1 / rate)
        nfe = int(random.choice([4, 8, 16, 40]))
        time.sleep(max(0.0, start + at - time.perf_counter()))
        wait = client.start(model, NOISE=noise, CLASS=1, SOLVER=b"midpoint", NFE=nfe)
        thread = threading.Thread(target=finish, args=(wait, start + at))
        thread.start()
        pending.append(thread)
    for thread in pending:
        thread.join()
    wall = time.perf_counter() - start
    return len(latencies) / wall, *(np.percentile(latencies, [50, 99]) * 1e3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    os.environ.setdefault("BESPOKE_LIBRARY", str(BUILD / "prefix" / "lib" / "libbespoke.so"))
    repository = models.build()
    try:
        with Server(repository.folder) as server:
            print("batch 16, nfe 8, one client        seconds   over the network calls")
            places = ("network calls", "in the backend", "on the server, its queue too", "at the client, over HTTP")
            spent = overhead(server)
            for place, own in zip(places, spent):
                print(f"  {place:28} {own:11.3f}   {own / spent[0]:.3f}")
            print()
            rounds = [
                {model: throughput(server, model, arguments.seconds / ROUNDS) for model in ("own", "digits-served", "loop")}
                for _ in range(ROUNDS)
            ]
            rates = {model: np.mean([rates[model] for rates in rounds]) for model in rounds[0]}
            print("16 clients, nfe 8                samples/s   over the Python loop")
            for label, model in (("source a", "own"), ("source b", "digits-served"), ("Python BLS loop", "loop")):
                print(f"  {label:28} {rates[model]:11.1f}   {rates[model] / rates['loop']:.1f}")
            for load in (0.3, 0.6, 0.9):
                # nfe 17 on the average, against the closed loop's 8.
                rate = load * rates["own"] * models.NFE / 17
                print(f"\nPoisson, {rate:6.1f} requests/s, nfe 4 to 40   requests/s    p50 ms    p99 ms")
                for label, model in (("continuous", "own"), ("whole batches", "whole")):
                    found = arrivals(server, model, rate, arguments.seconds)
                    print(f"  {label:38} {found[0]:10.1f} {found[1]:9.1f} {found[2]:9.1f}")
    finally:
        repository.close()


if __name__ == "__main__":
    main()
