#!/usr/bin/env python3
"""Makes a transformer of 30 million parameters with random weights, for samples of 4 x 32 x 32, as TorchScript, ONNX
and a package of AOTInductor: something to measure runtimes with.

    python3 scripts/make-large-network.py FOLDER

makes large.json, large-onnx.json and large-pt2.json. Needs torch, bespoke_solver, onnx, onnxruntime and a C++ compiler.
"""

import argparse
import math
from pathlib import Path

import torch
from bespoke_solver.exporting import write_model
from torch import nn

SHAPE = [4, 32, 32]
PATCH, WIDTH, HEADS, LAYERS = 2, 384, 6, 12
CARD = {
    "format": "bespoke-model",
    "version": 1,
    "shape": SHAPE,
    "output": "velocity",
    "scheduler": {"name": "fm-ot"},
}


class Block(nn.Module):
    """Attention and two layers, both scaled, shifted and gated by the time."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.heads, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"), nn.Linear(4 * WIDTH, WIDTH))
        self.by_time = nn.Linear(WIDTH, 6 * WIDTH)

    def attended(self, x):
        split = self.heads(x).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(split[0], split[1], split[2])
        return self.joined(found.transpose(1, 2).flatten(2))

    def forward(self, x, time):
        change = self.by_time(time)[:, None].chunk(6, dim=-1)
        x = x + change[2] * self.attended(self.norms[0](x) * (1 + change[0]) + change[1])
        return x + change[5] * self.layers(self.norms[1](x) * (1 + change[3]) + change[4])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        channels, rows, columns = SHAPE
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(1, rows * columns // PATCH**2, WIDTH))
        self.time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, PATCH**2 * channels))
        self.register_buffer("frequencies", torch.exp(-math.log(10000) * torch.arange(128) / 128))

    def forward(self, x, t):
        angles = 1000 * t[:, None] * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        state = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            state = block(state, time)
        channels, rows, columns = SHAPE
        parts = self.last(state).unflatten(1, (rows // PATCH, columns // PATCH)).unflatten(-1, (channels, PATCH, PATCH))
        return parts.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = Transformer().eval().requires_grad_(False)
    print(f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} million parameters")
    for runtime, name in [("torchscript", "large"), ("onnx", "large-onnx"), ("pt2", "large-pt2")]:
        print(write_model(network, folder / f"{name}.json", CARD, runtime, vjp=False), flush=True)


if __name__ == "__main__":
    main()
