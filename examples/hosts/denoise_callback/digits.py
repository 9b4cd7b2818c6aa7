"""The shipped digits as k-diffusion's samplers ask their model: model(x, sigma, classes=...) answers denoised."""

import importlib.util
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]


def k_diffusion(*names):
    """Modules of the package without its front door, which imports what trains and judges models, too."""
    if "k_diffusion" not in sys.modules:
        package = types.ModuleType("k_diffusion")
        package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
        sys.modules["k_diffusion"] = package
    return [importlib.import_module(f"k_diffusion.{name}") for name in names]


class Epsilon(torch.nn.Module):
    """A network that predicts noise on a continuous vp path: denoised = x - sigma epsilon."""

    def __init__(self, network, scheduler):
        super().__init__()
        self.network, self.low, self.high = network, scheduler["beta_min"], scheduler["beta_max"]

    def forward(self, x, sigma, classes):
        # ln(1 + sigma^2) = -2 ln alpha = (high - low) s^2 / 2 + low s, with s from the data to the noise.
        slope, level = (self.high - self.low) / 2, torch.log1p(sigma.double() ** 2)
        s = (torch.sqrt(self.low**2 + 4 * slope * level) - self.low) / (2 * slope)
        wide = sigma.reshape(-1, 1, 1, 1)
        return x - wide * self.network(x / torch.sqrt(1 + wide**2), (1 - s).float(), classes)


class Flow(torch.nn.Module):
    """A network that predicts the velocity from noise to data, x = (1 - sigma) data + sigma noise."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, sigma, classes):
        return x + sigma.reshape(-1, 1, 1, 1) * self.network(x, 1 - sigma, classes)


@dataclass
class Digits:
    """One of the models, and how a host counts its noise."""

    card: Path
    #: As the library takes it.
    scheduler: str
    flow: bool
    model: torch.nn.Module

    @classmethod
    def load(cls, name):
        card = ROOT / "models" / f"{name}.json"
        document = json.loads(card.read_text(encoding="utf-8"))
        network = torch.jit.load(card.parent / document["weights"], map_location="cpu").eval()
        scheduler = {**document["scheduler"], "end": document["time"]["end"]}
        model = _WRAP[document["output"]](network, scheduler)
        return cls(card, json.dumps(scheduler), document["output"] == "velocity", model)


def _of_v(network, _):
    [external] = k_diffusion("external")
    # Its time is 0 at the data, that of the network at the noise; both count the angle of the cosine path.
    inner = lambda x, time, classes: network(x, 1 - time, classes)
    return external.VDenoiser(inner)


_WRAP = {
    "velocity": lambda network, _: Flow(network),
    "epsilon": Epsilon,
    "v": _of_v,
}
