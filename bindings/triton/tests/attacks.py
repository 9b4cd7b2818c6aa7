"""What a hostile client sends: requests of all that the limits allow, ones that are not requests, ones that it cancels,
solvers that are new each time, answers that it does not read, and names of files where names of solvers belong."""

import base64
import functools
import json
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request

import conditioned
import numpy as np
from client import Client
from server import Address
from tritonclient.utils import InferenceServerException

MAX_COUNT, MAX_NFE = 1024, 1000
HUGE = 2**63 - 1
PATHS = ["/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "theta.json", "1/theta.json", "theta\0.json", "/dev/zero",
         "\\\\host\\share", "%2e%2e%2ftheta", "$(id)", "a" * 100_000]  # fmt: skip


def tensor(name, data, datatype="INT64", shape=(1, 1)):
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def asked(*tensors, **parameters):
    return {"inputs": list(tensors), "parameters": parameters}


def named(frames=2, mask=2, tokens=4):
    """The inputs of conditioned.py's model, one row."""
    return [
        tensor("cond", [0.0] * frames * 3, "FP32", (1, frames, 3)), tensor("text", [1] * tokens, shape=(1, tokens)),
        tensor("mask", [True] * mask, "BOOL", (1, mask)), tensor("weight", [0.0], "FP32"),
    ]  # fmt: skip


def bodies(digits, sized):
    """Requests over HTTP that must be refused: (path, body)."""
    infer, wide = f"/v2/models/{digits}/infer", f"/v2/models/{sized}/infer"
    for path in PATHS:
        yield infer, asked(tensor("SOLVER", [path], "BYTES"))
        yield infer, asked(tensor("SOLVER", [f"{path}@4"], "BYTES"))
    for name in ("COUNT", "NFE", "CLASS"):
        for number in (-1, -HUGE - 1, HUGE, 2**32, 10**6):
            yield infer, asked(tensor(name, [number]), tensor("SOLVER", ["euler"], "BYTES"))
    yield infer, asked(tensor("COUNT", [MAX_COUNT] * 64, shape=(64, 1)))
    # Shapes beyond all memory end the HTTP front end of release 24.10, before this backend hears of them (docs/threats.md).
    for shape in ((-1, 1), (0, 1), (1000, 1000), (1, 1, 8, 9), (1,) * 40):
        yield infer, asked(tensor("NOISE", [0.0], "FP32", shape))
    yield infer, asked(tensor("NOISE", [0.0] * 64, "FP32", (1, 1, 8, 8)), tensor("SEED", [1]))
    yield infer, asked(tensor("NOISE", [0.0] * 64, "FP64", (1, 1, 8, 8)))
    yield infer, asked(tensor("GUIDANCE_SCALE", [1e300], "FP32"))
    yield infer, asked(tensor("PROMPT", ["x"], "BYTES"))
    # Sizes that contradict each other, and ones that are none.
    yield wide, asked(*named(mask=3))
    yield wide, asked(*named(tokens=0))
    for frames in (-1, 0, 3, HUGE, 2**31, "2", 1.5):
        yield wide, asked(*named(), frames=frames)
    for body in (b"", b"{", b"null", b"[]", b'{"inputs": 3}', b'{"inputs": [{}]}', b"\xff" * 1000, b"[" * 20_000):
        yield infer, body
    # Not a client's to ask for.
    card = base64.b64encode(b"{}").decode()
    yield f"/v2/repository/models/{digits}/load", {"parameters": {"config": "{}", "file:1/card.json": card}}
    yield f"/v2/repository/models/{digits}/unload", {}
    yield "/v2/models/..%2f..%2fetc/infer", asked(tensor("SEED", [1]))
    yield "/v2/systemsharedmemory/region/mine/register", {"key": "/../../etc/passwd", "offset": 0, "byte_size": 64}


class Attacks:
    """Connections that attack in one way after another, at random, from `run` to the end of the process; only while
    `active` is set."""

    CONNECTIONS, HELD = 4, (2, 20)

    def __init__(self, ports, digits, sized, active, found):
        self.address = Address(ports)
        self.digits, self.sized, self.active, self.found = digits, sized, active, found

    def run(self):
        os.nice(10)  # what it computes itself is no load of the server's
        threads = [threading.Thread(target=self.keep_on, args=(i,), daemon=True) for i in range(self.CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def keep_on(self, seed):
        random_ = random.Random(seed)
        attacks = [self.largest, self.widest, self.cancelled, self.ever_new, self.unread, self.half, self.malformed]
        while True:
            self.active.wait()
            attack = random_.choice(attacks)
            try:
                attack(random_)
            except Exception as error:  # whatever it is, it is a finding
                self.found.put(f"{attack.__name__}: {error!r}")
                time.sleep(1)

    def hold(self, random_):
        """Waits a while, or until the attack is over."""
        end = time.monotonic() + random_.uniform(*self.HELD)
        while time.monotonic() < end and self.active.is_set():
            time.sleep(0.1)

    def given_up(self, model, until, **values):
        """A request that would take minutes, cancelled when `until` returns."""
        wait = Client(self.address, "grpc").start(model, **values)
        until()
        wait.cancel()
        try:
            wait()
        except InferenceServerException as error:
            if "cancel" not in str(error).lower():
                raise

    def largest(self, random_):
        self.given_up(self.digits, lambda: self.hold(random_), COUNT=MAX_COUNT, SOLVER=b"euler", NFE=MAX_NFE, GUIDANCE_SCALE=2.5)

    def widest(self, random_):
        """Samples of a size of its own, whose calls of the network nobody shares."""
        values = conditioned.order(np.random.default_rng(random_.randrange(2**32)), frames=500, tokens=50, rows=64)
        self.given_up(self.sized, lambda: self.hold(random_), **values, SOLVER=[b"euler"] * 64, NFE=[MAX_NFE] * 64)

    def cancelled(self, random_):
        for _ in range(20):
            pause = random_.random() * 0.1
            self.given_up(self.digits, functools.partial(time.sleep, pause), COUNT=MAX_COUNT, SOLVER=b"euler", NFE=MAX_NFE)

    def ever_new(self, random_):
        """Solvers that nobody has asked for before, the longest there are: each is made, and would be kept."""
        for nfe in random_.sample(range(MAX_NFE // 2, MAX_NFE + 1), 40):
            solver = random_.choice([b"euler", b"ab2", b"ab3", b"ipndm", b"deis2", b"dpm++2m", b"unipc"])
            self.given_up(self.digits, functools.partial(time.sleep, random_.random() * 0.1), SOLVER=solver, NFE=nfe)

    def connect(self, body, length=None):
        """A connection that has sent the body of a request."""
        head = f"POST /v2/models/{self.digits}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length or len(body)}\r\n\r\n"
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.address.ports["http"]))
        connection.sendall(head.encode() + body)
        return connection

    def unread(self, random_):
        """Answers of megabytes that nobody reads."""
        body = json.dumps(asked(tensor("COUNT", [MAX_COUNT]), tensor("SOLVER", ["euler@1"], "BYTES"))).encode()
        connections = [self.connect(body) for _ in range(4)]
        self.hold(random_)
        for connection in connections:
            connection.close()

    def half(self, random_):
        """Requests that say they are long, and stop."""
        connections = [self.connect(b'{"inputs": [', length) for length in (100, 10**6, 2**31, 2**40) for _ in range(4)]
        self.hold(random_)
        for connection in connections:
            connection.close()

    def malformed(self, random_):
        for path, body in random_.sample(list(bodies(self.digits, self.sized)), 20):
            if not self.active.is_set():
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{self.address.ports['http']}{path}", data)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.found.put(f"{path} {data[:200]!r} was answered with {answer.status}")
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")
                # What is in the file that a name might have named.
                if error.code < 400 or "root:" in said or len(said) > 2000:
                    self.found.put(f"{path} {data[:200]!r}: {error.code} {said[:300]}")
            time.sleep(0.05)


def attack(*arguments):
    Attacks(*arguments).run()
