"""Models as TorchScript, ONNX and packages of AOTInductor: each runs in the program as the others do.

A package takes a minute to compile: the tests make that of one shipped model, and with BESPOKE_EVERY_PACKAGE=1 in the
environment those of all six.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bespoke_solver import TorchField
from bespoke_solver.exporting import write_model
from diffusers import DDPMScheduler

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke"))
#: With what each shipped model's samples are conditioned on; the first is trained, too.
SHIPPED = {
    "photos-wide": ["--conditions", ROOT / "models/conditions/photos-wide-8.safetensors"],
    "digits-text": ["--conditions", ROOT / "models/conditions/digits-text-9.safetensors"],
    "digits-fm-ot": [],
    "digits-cosine": [],
    "digits-vp": [],
    "photos-fm-ot": [],
}
TRAINED = "photos-wide"
PACKED = list(SHIPPED)[: None if os.environ.get("BESPOKE_EVERY_PACKAGE") else 1]
# The code around the kernels is as right without being optimised, and sooner there.
os.environ["AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL"] = "O0"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
CARD = {"format": "bespoke-model", "version": 1, "output": "velocity", "scheduler": {"name": "fm-ot"}}


def bespoke(*arguments, check=True):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], check=check, capture_output=True, text=True, env=ENVIRONMENT
    )


def refused(card):
    """What the program says of a card that it does not open."""
    found = bespoke("check", card, check=False)
    assert found.returncode == 1, (found.returncode, found.stdout, found.stderr)
    return found.stderr


def sampled(card, noise, solver, folder, *more):
    np.save(folder / "noise.npy", noise)
    arguments = ["--model", card, "--solver", solver, "--noise", folder / "noise.npy", "--out", folder / "x.npy"]
    bespoke("sample", *arguments, *more)
    return np.load(folder / "x.npy")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A shipped model's card for a runtime; with a product for the one that is trained: each package takes a minute."""
    folder = tmp_path_factory.mktemp("exported")

    def export(name, runtime):
        if runtime == "torchscript":
            return ROOT / f"models/{name}.json"
        card = folder / f"{name}-{runtime}.json"
        if not card.exists():
            more = [] if name == TRAINED else ["--forward-only"]
            command = [sys.executable, ROOT / "scripts/export.py", ROOT / f"models/{name}.json"]
            command += ["--runtime", runtime, "--out", folder, *more]
            subprocess.run(command, check=True, env=ENVIRONMENT)
        return card

    return export


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_the_same_in_every_runtime(exported, name, tmp_path):
    shape = json.loads((ROOT / f"models/{name}.json").read_text())["shape"]
    for count in (1, 5):
        sizes = [8 if size == "width" else size for size in shape]
        noise = np.random.default_rng(count).standard_normal((count, *sizes)).astype(np.float32)
        # Of the first the difference is that of the velocity at noise alone; guidance stacks passes.
        for solver, *more in [("euler@1",), ("midpoint@4",), ("midpoint@4", "--guidance-scale", "2")]:
            if more and name == "photos-fm-ot":
                continue
            more += SHIPPED[name]
            expected = sampled(exported(name, "torchscript"), noise, solver, tmp_path, *more)
            for runtime in ("onnx", "pt2")[: 2 if name in PACKED else 1]:
                found = sampled(exported(name, runtime), noise, solver, tmp_path, *more)
                assert np.abs(found - expected).max() < 1e-5, (runtime, count, solver)


def trained(card, folder):
    theta = folder / f"{card.stem}.json"
    small = ["--pool", "40", "--batch", "20", "--validation", "20", "--iterations", "4", *SHIPPED[TRAINED]]
    bespoke("train", "--model", card, "--family", "rk2", "--steps", "2", *small, "--out", theta)
    return theta


def test_what_is_learned_in_one_runtime_serves_the_others(exported, tmp_path):
    cards = {runtime: exported(TRAINED, runtime) for runtime in ("torchscript", "onnx", "pt2")}
    script, package = (trained(cards[runtime], tmp_path) for runtime in ("torchscript", "pt2"))
    first, second = (json.loads(theta.read_text()) for theta in (script, package))
    # By gradients, both: the same numbers but for rounding.
    assert first["training"]["optimizer"] == second["training"]["optimizer"] == "gauss-newton"
    for key in ("t", "t_dot", "s", "s_dot"):
        assert np.allclose(first[key], second[key], atol=1e-3), key
    rmse = {}
    for runtime, card in cards.items():
        table = tmp_path / f"{runtime}.json"
        own = [*SHIPPED[TRAINED], "--count", "50"]
        found = bespoke("eval", "--model", card, "--solver", package, *own, "--json", table)
        rmse[runtime] = json.loads(table.read_text())["results"][0]["rmse"]
        # It is another file, and that is said once.
        assert found.stderr.count("was trained for") == (runtime != "pt2"), found.stderr
    assert max(rmse.values()) - min(rmse.values()) < 1e-4 * max(rmse.values()), rmse


def test_a_package_without_its_product_is_trained_by_forward_passes(exported, tmp_path):
    card = json.loads(exported(TRAINED, "pt2").read_text())
    card["weights"] = str(exported(TRAINED, "pt2").parent / card["weights"])
    del card["vjp"]
    (tmp_path / "forward.json").write_text(json.dumps(card))
    theta = json.loads(trained(tmp_path / "forward.json", tmp_path / "..").read_text())
    assert theta["training"]["optimizer"] == "forward-gauss-newton"


class Conditioned(torch.nn.Module):
    """Of samples with a named size: time first, as a column, with a number, a mask and tokens."""

    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.tokens, self.scale = torch.nn.Linear(6, 6), torch.nn.Embedding(2, 6), scale

    def forward(self, t, x, strength, mask, text):
        told = self.tokens(text).mean(1)[:, None]
        # Silent where either is zero.
        factor = self.scale * mask[:, :, None] * strength[:, None, None]
        return torch.tanh(self.mix(x) * t[:, :, None] + told) * factor


CONDITIONED = {
    **CARD,
    "shape": ["frames", 6],
    "order": ["time", "x"],
    "time": {"scale": 10.0, "offset": -1.0, "direction": "data-to-noise", "shape": "column"},
    "inputs": [
        {"name": "strength", "dtype": "float32", "shape": []},
        {"name": "mask", "dtype": "bool", "shape": ["frames"]},
        {"name": "text", "dtype": "int64", "shape": ["tokens"], "null": 0},
    ],
}


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditioned")
    names = {"torchscript": "net", "onnx": "net-onnx", "pt2": "net-pt2"}
    network = Conditioned().eval()
    return {runtime: write_model(network, folder / f"{name}.json", CONDITIONED, runtime) for runtime, name in names.items()}


def test_named_sizes_and_inputs_of_every_kind(conditioned, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    for frames, tokens in [(1, 3), (9, 1)]:
        conditions = {
            "strength": torch.linspace(0.5, 1.5, 4),
            "mask": torch.rand(4, frames) < 0.7,
            "text": torch.randint(0, 2, (4, tokens)),
        }
        safetensors.save_file(conditions, tmp_path / "conditions.safetensors")
        noise = np.random.default_rng(0).standard_normal((4, frames, 6)).astype(np.float32)
        more = ["--conditions", tmp_path / "conditions.safetensors", "--guidance-scale", "1.5"]
        expected = sampled(conditioned["torchscript"], noise, "midpoint@4", tmp_path, *more)
        for runtime in ("onnx", "pt2"):
            found = sampled(conditioned[runtime], noise, "midpoint@4", tmp_path, *more)
            assert np.abs(found - expected).max() < 1e-5, (runtime, frames)


def test_a_package_that_is_not_what_its_card_says_is_refused_by_name(conditioned, tmp_path):
    good = json.loads(conditioned["pt2"].read_text())
    folder = conditioned["pt2"].parent

    def says(parts, **changes):
        card = {**good, "weights": str(folder / good["weights"]), "vjp": str(folder / good["vjp"]), **changes}
        (tmp_path / "card.json").write_text(json.dumps(card))
        message = refused(tmp_path / "card.json")
        for part in parts:
            assert part in message, message

    says(["net-pt2.pt2", "x: ", "[any, any, 6] in the package", "[any, any, 5] in the card"], shape=["frames", 5])
    says(["net-pt2.pt2", "x: ", "[any, 1] in the package"], order=["x", "time"])
    says(["inputs: ", "5 in the package", "time, x, strength, mask"], inputs=good["inputs"][:2])
    wrong = [{**good["inputs"][0], "dtype": "float64"}, *good["inputs"][1:]]
    says(["strength: ", "float32 in the package", "float64 in the card"], inputs=wrong)
    says(["net-pt2.pt2", "inputs: ", "5 in the package"], vjp=str(folder / good["weights"]))
    write_model(Conditioned(2.0).eval(), tmp_path / "other.json", CONDITIONED, "pt2", vjp=False)
    says(["net-pt2-vjp.pt2", "of another network"], weights=str(tmp_path / "other.pt2"))


class Drawing(torch.nn.Module):
    def forward(self, x, t):
        return x * t[:, None] + torch.rand_like(x)


class OfTheFirst(torch.nn.Module):
    """Its trace is of one batch alone."""

    def forward(self, x, t):
        return x * t[:, None] * float(len(x))


def test_an_export_that_differs_from_its_module_leaves_nothing(tmp_path):
    for network in (Drawing(), OfTheFirst()):
        with pytest.raises(RuntimeError, match="differs from the module"):
            write_model(network, tmp_path / "net.json", {**CARD, "shape": [4]}, "torchscript")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="torchscript, onnx, pt2"):
        write_model(Drawing(), tmp_path / "net.json", {**CARD, "shape": [4]}, "tensorrt")
    with pytest.raises(ValueError, match="NAME.json"):
        write_model(Drawing(), tmp_path / "net", {**CARD, "shape": [4]})


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.classes, self.mix = torch.nn.Embedding(4, 3), torch.nn.Linear(3, 3)

    def forward(self, sample, timestep, class_labels):
        return torch.tanh(self.mix(sample) + self.classes(class_labels) + timestep[:, None] / 1000)


def test_a_field_is_exported_for_every_runtime(tmp_path):
    conditions, null = {"class_labels": torch.arange(3)}, {"class_labels": torch.tensor(3)}
    field = TorchField(Small(), DDPMScheduler().config, (3,), conditions=conditions, null=null)
    noise = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    found = {}
    for runtime, end in {"torchscript": ".pt", "onnx": ".onnx", "pt2": ".pt2"}.items():
        card = field.export(tmp_path / f"{runtime}.json", runtime)
        document = json.loads(card.read_text())
        assert document["weights"] == f"{runtime}{end}" and ("vjp" in document) == (runtime == "pt2")
        more = ["--class", "2", "--guidance-scale", "2"]
        found[runtime] = sampled(card, noise, "midpoint@4", tmp_path, *more)
    for runtime in ("onnx", "pt2"):
        assert np.abs(found[runtime] - found["torchscript"]).max() < 1e-5 * np.abs(found["torchscript"]).max(), runtime
