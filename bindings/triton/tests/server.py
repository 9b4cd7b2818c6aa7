"""A tritonserver of the nvidia-pytriton package on free ports of 127.0.0.1."""

import ctypes.util
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path

import tritonclient.grpc as grpc
import tritonclient.http as http

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("TRITON_BUILD", ROOT / "build" / "triton"))
# The GPU that is not there: tests/fake_cuda.c.
DEVICE = BUILD / "tests" / "libfake_cuda.so"
# Whether the samples of the server's instances are in its memory.
ON_DEVICE = "BESPOKE_TRITON_TEST_DEVICE" in os.environ
# The package is only carried for the server: importing it would need all that it depends on.
PACKAGE = Path(importlib.util.find_spec("pytriton").submodule_search_locations[0]) / "tritonserver"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Address:
    """Where a server listens, for a process of its own."""

    def __init__(self, ports):
        self.ports = ports

    def http(self, concurrency=1):
        return http.InferenceServerClient(
            f"127.0.0.1:{self.ports['http']}", concurrency=concurrency, connection_timeout=120, network_timeout=120)

    def grpc(self):
        return grpc.InferenceServerClient(f"127.0.0.1:{self.ports['grpc']}")


class Server(Address):
    """Runs from `with Server(...) as server` to its end."""

    def __init__(self, repository, *, explicit=False, arguments=()):
        super().__init__(dict(zip(("http", "grpc", "metrics"), free_ports(3))))
        self.repository = Path(repository)
        self.log_path = Path(tempfile.mkstemp(prefix="tritonserver-", suffix=".log")[1])
        self.command = [
            str(PACKAGE / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={self._backends()}",
            "--http-address=127.0.0.1", f"--http-port={self.ports['http']}",
            "--grpc-address=127.0.0.1", f"--grpc-port={self.ports['grpc']}",
            "--allow-metrics=true", "--metrics-address=127.0.0.1", f"--metrics-port={self.ports['metrics']}",
            "--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0", "--exit-timeout-secs=5",
            "--exit-on-error=false", "--strict-readiness=false", *(["--model-control-mode=explicit"] if explicit else []),
            *arguments,
        ]  # fmt: skip

    @staticmethod
    def _backends():
        """The built backend beside the package's Python backend, with the stub for this Python."""
        folder = BUILD / "backends"
        python = folder / "python"
        python.mkdir(exist_ok=True)
        stub = PACKAGE / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
        # The stub takes no environment, but imports what lies beside it.
        numpy = [Path(sysconfig.get_path("purelib")) / name for name in ("numpy", "numpy.libs")]
        for file in [*numpy, *(PACKAGE / "backends" / "python").glob("*triton*.*"), stub]:
            link = python / file.name
            if not link.exists():
                link.symlink_to(file)
        return folder

    def __enter__(self):
        environment = dict(os.environ)
        libraries = [sysconfig.get_config_var("LIBDIR"), environment.get("LD_LIBRARY_PATH")]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
        environment.setdefault("OMP_NUM_THREADS", "1")
        if ON_DEVICE:
            # The server has no GPU: samples of its instances on the processor are in the memory of one that is not there.
            environment["BESPOKE_CUDA_LIBRARY"] = str(DEVICE)
        for library in ROOT.glob(".venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*"):
            environment.setdefault("BESPOKE_ONNXRUNTIME", str(library))
        if allocator := ctypes.util.find_library("tcmalloc_minimal"):  # docs/triton.md, Sizing
            environment.setdefault("LD_PRELOAD", allocator)
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if self.ready():
                return
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.log()}")

    def ready(self):
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}/v2/health/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log_path.unlink()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def metric(self, name, model):
        """Sum of a metric over the versions of a model; 0 where it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        values = re.findall(rf'^{name}{{[^}}]*model="{re.escape(model)}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, values))

    def resident_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024
