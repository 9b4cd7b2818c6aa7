"""Hostile clients beside good ones: what these wait, that every sample of theirs is right, and the server's memory.

    python hostile.py --seconds 600 --clients 32 --most 1.5

Good clients run all the time. Of each of ten rounds the hostile ones (attacks.py) are idle for a fifth, and then at work
until its end: the 99th percentiles compared are of the same minutes.
"""

import argparse
import multiprocessing
import sys
import threading
import time

import conditioned
import numpy as np
from attacks import attack
from client import Client
from repository import Repository
from server import Server
from soak import CONDITIONED, MODEL, Clients, Truth

ROUNDS = 10
# What the second half of the rounds may take beyond the first, in which the allocator comes to keep what the largest
# requests needed: 220 to 320 MiB in all. What is lost by each attack would go on growing.
ALLOWED_MIB = 64


class Good(Clients):
    """Good clients, and their times by phase."""

    def __init__(self, server, truth, clients):
        super().__init__(server, truth)
        self.phase, self.times = "", {"alone": [], "beside": []}
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(clients)]

    def over(self):
        return self.ended.is_set()

    def one(self, client, random_):
        model, values, expected = self.draw(random_)
        phase, start = self.phase, time.monotonic()
        found, _ = client.infer(model, **values)
        seconds = time.monotonic() - start
        self.check(found, expected)
        with self.lock:
            if phase in self.times:
                self.times[phase].append(seconds)


def resident(server, seconds):
    """The most MiB that the server takes meanwhile."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, server.resident_mib())
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
    return most


def rounds(server, good, active, seconds):
    """Resident MiB of each phase of each round, and after the last one."""
    most = {"alone": [], "beside": []}
    for _ in range(ROUNDS):
        for phase, share in (("alone", 0.2), ("beside", 0.8)):
            if phase == "beside":
                active.set()
            good.phase = phase
            most[phase].append(resident(server, seconds / ROUNDS * share))
            good.phase = "rest"
            active.clear()
        time.sleep(1)
    return most


def report(good, most, server, arguments, findings):
    """Prints the figures; says what is not as it must be."""
    problems = [*good.wrong, *findings]
    p50, p99 = ({phase: np.percentile(times, q) * 1e3 for phase, times in good.times.items()} for q in (50, 99))
    for phase, times in good.times.items():
        print(f"{phase:6}: {len(times)} requests right, p50 {p50[phase]:.1f} ms, p99 {p99[phase]:.1f} ms, "
              f"longest {max(times) * 1e3:.0f} ms, resident {max(most[phase]):.0f} MiB at most")  # fmt: skip
    print("resident MiB at most, round by round:", *(f"{mib:.0f}" for mib in most["beside"]))
    ratio = p99["beside"] / p99["alone"]
    print(f"p99 beside the hostile ones is {ratio:.2f} times that alone")
    if arguments.most and ratio > arguments.most:
        problems.append(f"p99 rose by more than {arguments.most}")
    early, late = max(most["beside"][: ROUNDS // 2]), max(most["beside"][ROUNDS // 2 :])
    if late - early > ALLOWED_MIB:
        problems.append(f"memory grew from {early:.0f} to {late:.0f} MiB")
    left = sum(server.metric("bespoke_active_rows", model) for model in (MODEL, CONDITIONED))
    if left != 0:
        problems.append(f"{left} samples are still under way")
    if not server.ready() or Client(server).infer(MODEL, SEED=1)[0].shape != (1, 1, 8, 8):
        problems.append("the server does not answer any more")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--most", type=float, help="how many times as long the 99th percentile may be; else it is not judged")
    arguments = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    active, found = processes.Event(), processes.Queue()
    repository = Repository()
    try:
        repository.add_digits(MODEL)
        repository.add_library(CONDITIONED, conditioned.PARAMETERS, card=conditioned.card())
        with Server(repository.folder) as server:
            good = Good(server, Truth(repository, server), arguments.clients)
            hostile = processes.Process(target=attack, args=(server.ports, MODEL, CONDITIONED, active, found), daemon=True)
            hostile.start()
            for thread in good.threads:
                thread.start()
            resident(server, min(5, arguments.seconds / ROUNDS))  # until all are under way
            most = rounds(server, good, active, arguments.seconds)
            good.ended.set()
            for thread in good.threads:
                thread.join()
            hostile.terminate()
            hostile.join()
            time.sleep(1)
            findings = [found.get() for _ in range(found.qsize())]
            problems = report(good, most, server, arguments, findings)
    finally:
        repository.close()
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
