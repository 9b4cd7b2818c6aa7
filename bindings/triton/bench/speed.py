"""The backend beside the bare network, Python loops, and itself without continuous batching: ratios of one run.

    python speed.py [--seconds 10]
"""

import argparse
import os
import threading
import time

import numpy as np

import models
from client import Client
from repository import digits_noise
from server import BUILD, Server

SECONDS = "bespoke_network_seconds_total"


def overhead(server):
    """Requests of 16 samples, one after the other: their time on the server over that of the network calls alone."""
    client, noise = Client(server), digits_noise(16)
    values = {"NOISE": noise, "SOLVER": [b"midpoint"] * 16, "NFE": [models.NFE] * 16}
    for _ in range(20):
        client.infer("own", **values)
    statistics = lambda: server.http().get_inference_statistics("own")["model_stats"][0]["inference_stats"]["success"]["ns"]  # noqa: E731
    served, network = statistics(), server.metric(SECONDS, "own")
    start = time.perf_counter()
    for _ in range(200):
        client.infer("own", **values)
    wall = time.perf_counter() - start
    return (statistics() - served) * 1e-9, server.metric(SECONDS, "own") - network, wall


def throughput(server, model, seconds, concurrency=16):
    """Samples a second of clients that send one sample at a time."""
    done, end = [0] * concurrency, time.perf_counter() + seconds
    noise = digits_noise(concurrency)

    def client(number):
        own = Client(server, "grpc")
        values = {"NOISE": noise[number : number + 1], "CLASS": number % 10, "NFE": models.NFE}
        if model != "loop":
            values["SOLVER"] = b"midpoint"
        while time.perf_counter() < end:
            own.infer(model, **values)
            done[number] += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(concurrency)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


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
            served, network, wall = overhead(server)
            print("batch 16, nfe 8, one client        seconds   over the network calls")
            print(f"  network calls                 {network:10.3f}   1.00")
            print(f"  on the server, in the backend {served:10.3f}   {served / network:.3f}")
            print(f"  at the client, over HTTP      {wall:10.3f}   {wall / network:.3f}\n")
            rates = {model: throughput(server, model, arguments.seconds) for model in ("own", "digits-served", "loop")}
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
