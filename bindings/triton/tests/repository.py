"""Model repositories for the tests, and what the command line says of the same samples."""

import json
import platform
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from server import BUILD, ROOT

BESPOKE = BUILD / "prefix" / "bin" / "bespoke"
MODELS = ROOT / "models"


def bespoke(*arguments):
    run = subprocess.run([BESPOKE, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    if run.returncode != 0:
        raise RuntimeError(f"bespoke {' '.join(map(str, arguments))}: {run.stderr}")


def parameter_text(parameters):
    return "".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )


class Repository:
    """A folder of models in a temporary place."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bespoke-triton-"))
        self.files = Path(tempfile.mkdtemp(prefix="bespoke-solvers-"))
        self.make_solvers()

    def close(self):
        shutil.rmtree(self.folder)
        shutil.rmtree(self.files)

    def make_solvers(self):
        """theta.json with 8 evaluations, and ladder.json with 4, 6 and 10."""
        bespoke("convert", "--from", "fm-ot", "--to", "cosine", "--steps", 4, "--family", "rk2", "--out", self.files / "theta.json")
        rungs = []
        for nfe in (4, 6, 10):
            rungs.append(self.files / f"rung-{nfe}.json")
            bespoke("compile", f"midpoint@{nfe}", "--scheduler", "fm-ot", "--out", rungs[-1])
        bespoke("ladder", *rungs, "--out", self.files / "ladder.json")

    def add(self, name, parameters, extra="", files=()):
        """A model of the backend; `files` are copied into its version folder."""
        version = self.folder / name / "1"
        version.mkdir(parents=True)
        for file in files:
            shutil.copy(file, version)
        text = f'backend: "bespoke"\n{parameter_text(parameters)}{extra}\n'
        (self.folder / name / "config.pbtxt").write_text(text)
        return version

    def add_digits(self, name, parameters=(), extra="", card="digits-fm-ot"):
        files = [MODELS / f"{card}.json", MODELS / f"{card}.pt", self.files / "theta.json", self.files / "ladder.json"]
        own = {"card": f"{card}.json", "thetas": "theta.json, ladder.json", **dict(parameters)}
        return self.add(name, own, extra, files)

    def add_library(self, name, parameters=(), extra="", card=()):
        """A model of source (c): tests/velocity.cpp."""
        document = {
            "format": "bespoke-model", "version": 1, "runtime": "host", "shape": [4], "output": "velocity",
            "scheduler": {"name": "fm-ot"}, **({"classes": 10, "null_class": 10} if "inputs" not in card else {}), **dict(card),
        }  # fmt: skip
        own = {"card": "card.json", "solver": "euler@10", "velocity_library": "libvelocity.so", **dict(parameters)}
        version = self.add(name, own, extra, [BUILD / "tests" / "libvelocity.so"])
        (version / "card.json").write_text(json.dumps(document))
        return version


    def add_package(self, name, parameters):
        """A network of source (a) in a package as AOTInductor makes it: tests/pt2/network.c, samples of 3 numbers."""
        libraries = ROOT / ".venv" / "libtorch" / "lib"
        subprocess.run(
            ["cc", "-std=c99", "-O1", "-shared", "-fPIC", ROOT / "tests" / "pt2" / "network.c", "-o", self.files / "network.so",
             "-Wl,--no-as-needed", f"-L{libraries}", "-l:libtorch_cpu.so", "-lm"],
            check=True,
        )  # fmt: skip
        version = self.add(name, {"card": "card.json", **parameters})
        checks = [["3 != a_size[1]", "3 != a_stride[0]", "1 != a_stride[1]"], ["1 != a_stride[0]"]]
        source = "".join(
            f"static void check_input_{i}(\nint32_t a_expected_dtype = aoti_torch_dtype_float32();\n"
            + "".join(f"if ({condition}) {{\n}}\n" for condition in conditions)
            for i, conditions in enumerate(checks)
        )
        with zipfile.ZipFile(version / "net.pt2", "w") as package:
            model = "net/data/aotinductor/model/network.wrapper"
            package.writestr(f"{model}_metadata.json", json.dumps({"AOTI_DEVICE_KEY": "cpu", "AOTI_MACHINE": platform.machine()}))
            package.writestr(f"{model}.cpp", source)
            package.write(self.files / "network.so", f"{model}.so")
            package.writestr("net/.data/version", "3\n")
            package.writestr("net/archive_format", "pt2")
        document = {
            "format": "bespoke-model", "version": 1, "runtime": "pt2", "weights": "net.pt2", "shape": [3], "output": "velocity",
            "scheduler": {"name": "fm-ot"},
        }  # fmt: skip
        (version / "card.json").write_text(json.dumps(document))


def digits_noise(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 1, 8, 8)).astype(np.float32)


def sampled(card, solver, noise=None, seed=None, count=None, of_class=None, guidance_scale=None):
    """What `bespoke sample` draws."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.npy"
        arguments = ["sample", "--model", MODELS / f"{card}.json", "--solver", solver, "--out", out]
        if noise is not None:
            np.save(Path(folder) / "noise.npy", noise)
            arguments += ["--noise", Path(folder) / "noise.npy"]
        for option, value in (("seed", seed), ("count", count), ("class", of_class), ("guidance-scale", guidance_scale)):
            if value is not None:
                arguments += [f"--{option}", value]
        bespoke(*arguments)
        return np.load(out)
