#!/usr/bin/env python3
"""A theta behind a denoise callback beside k-diffusion's own samplers, on the same wrapped model and noises.

    python examples/hosts/denoise_callback/compare.py --nfe 8 --count 500

Learns a theta for each of the shipped digits by `bespoke train`, runs it by denoise_callback.hpp behind the model
wrappers of k-diffusion, and prints the rmse against the ground truth (`bespoke sample --solver gt`) as a table in
Markdown. k-diffusion's samplers go down its Karras levels between the ends of the model's own, flow models even ones.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from bridge import DenoiseSolver, build
from compiled import ROOT
from digits import Digits, k_diffusion

PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke"))
MODELS = ["digits-cosine", "digits-vp", "digits-fm-ot"]
TRAINING = ["--pool", "500", "--batch", "200", "--validation", "250", "--iterations", "12"]
#: Of k-diffusion, and how many evaluations a step takes; the last one, to level 0, takes one.
SAMPLERS = {"sample_euler": 1, "sample_lms": 1, "sample_dpmpp_2m": 1, "sample_heun": 2, "sample_dpm_2": 2}
#: Karras levels, but for the 0 that follows.
LOWEST, HIGHEST = 0.02, 80.0
#: Those whose formula is of x = data + sigma noise alone.
EXPLODING = {"sample_dpmpp_2m"}


def bespoke(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def solved(card, solver, noise, folder):
    """What `bespoke sample` makes of the noise; sample i is of class i mod 10."""
    np.save(folder / "noise.npy", noise.numpy())
    bespoke("sample", "--model", card, "--solver", solver, "--noise", folder / "noise.npy", "--out", folder / "x.npy")
    return torch.from_numpy(np.load(folder / "x.npy"))


def classes_of(noise):
    return {"classes": torch.arange(len(noise)) % 10}


def by_theta(digits, solver, noise):
    return solver.sample(digits.model, noise * solver.sigmas[0], classes_of(noise))


def levels(digits, solver, steps):
    """Noise levels for a sampler of k-diffusion, from where the theta starts; they end at 0, which it steps to."""
    [sampling] = k_diffusion("sampling")
    high = float(solver.sigmas[0])
    if digits.flow:
        return torch.linspace(high, 0, steps + 1)
    return sampling.get_sigmas_karras(steps, LOWEST, min(high, HIGHEST))


@torch.no_grad()
def by_k_diffusion(digits, name, sigmas, noise):
    [sampling] = k_diffusion("sampling")
    return getattr(sampling, name)(digits.model, noise * sigmas[0], sigmas, extra_args=classes_of(noise), disable=True)


def rmse(found, truth):
    return float((found - truth).square().flatten(1).mean(1).sqrt().mean())


def rows(name, library, nfe, noise, training, folder):
    """The rmse of every sampler on one model, by name."""
    digits, theta = Digits.load(name), folder / f"{name}.json"
    bespoke("train", "--model", digits.card, "--family", "rk2", "--nfe", nfe, *training, "--out", theta)
    solver = DenoiseSolver(library, theta, digits.scheduler, flow=digits.flow)
    truth = solved(digits.card, "gt", noise, folder)
    found = {"theta": rmse(by_theta(digits, solver, noise), truth)}
    for sampler, each in SAMPLERS.items():
        if not (digits.flow and sampler in EXPLODING):
            # With two evaluations a step it is one more in all, not one less.
            sigmas = levels(digits, solver, nfe if each == 1 else nfe // 2 + 1)
            found[sampler] = rmse(by_k_diffusion(digits, sampler, sigmas, noise), truth)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", type=int, default=8, help="evaluations of the theta, even")
    parser.add_argument("--count", type=int, default=500, help="samples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    noise = torch.randn((arguments.count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        library = build(folder)
        tables = {name: rows(name, library, arguments.nfe, noise, TRAINING, folder) for name in MODELS}
    print(f"| {arguments.nfe} evaluations | {' | '.join(MODELS)} |\n|{' --- |' * (len(MODELS) + 1)}")
    for sampler in tables[MODELS[0]]:
        note = f" ({arguments.nfe + 1})" if SAMPLERS.get(sampler) == 2 else ""
        cells = [f"{tables[name][sampler]:.4f}" if sampler in tables[name] else "–" for name in MODELS]
        print(f"| {sampler}{note} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
