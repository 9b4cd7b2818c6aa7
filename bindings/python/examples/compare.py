"""RMSE against the ground truth at ten evaluations: BespokeScheduler next to diffusers' schedulers.

    python examples/compare.py [--kind flow vp] [--count 200] [--out compare.png]

Trains a small UNet of handwritten digits as flow matching and as VP epsilon, fits solvers to each pipeline, and runs
every scheduler in the same pipeline on the same noises, with guidance 2. Each of diffusers' schedulers stands with the
best of its timestep spacings and, where there is the choice, of ending at sigma 0 or at the least sigma of training. The
ground truth is the classical Runge-Kutta method with 800 evaluations.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import bespoke_solver as bespoke
import diffusers
import torch
from bespoke_solver import BespokeScheduler
from bespoke_solver.fitting import field_of
from digits import conditions, pipeline_of

GUIDANCE = 2.0
SPACINGS = ["linspace", "leading", "trailing"]
FINAL = ["zero", "sigma_min"]


def candidates(kind: str) -> dict:
    """Of each of diffusers' schedulers, the settings to choose from and the steps that make ten evaluations."""
    if kind == "flow":
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
        multistep = [dict(flow, final_sigmas_type=final) for final in FINAL]
        return {
            "Euler": (diffusers.FlowMatchEulerDiscreteScheduler, [{}], 10),
            "Heun (9 evaluations)": (diffusers.FlowMatchHeunDiscreteScheduler, [{}], 5),
            "DPMSolverMultistep": (diffusers.DPMSolverMultistepScheduler, multistep, 10),
            "UniPC": (diffusers.UniPCMultistepScheduler, multistep, 10),
            "DEIS": (diffusers.DEISMultistepScheduler, [flow], 10),
        }
    spaced = [{"timestep_spacing": spacing} for spacing in SPACINGS]
    ended = [dict(timestep_spacing=s, final_sigmas_type=f) for s, f in itertools.product(SPACINGS, FINAL)]
    return {
        "Euler": (diffusers.EulerDiscreteScheduler, ended, 10),
        "Heun (9 evaluations)": (diffusers.HeunDiscreteScheduler, spaced, 5),
        "DPMSolverMultistep": (diffusers.DPMSolverMultistepScheduler, ended, 10),
        "UniPC": (diffusers.UniPCMultistepScheduler, ended, 10),
        "DEIS": (diffusers.DEISMultistepScheduler, spaced, 10),
    }


def rmse(samples: torch.Tensor, truth: torch.Tensor) -> float:
    return (samples - truth).flatten(1).square().mean(1).sqrt().mean().item()


def compare(kind: str, count: int, iterations: int) -> tuple:
    pipeline = pipeline_of(kind)
    labels = [i % 10 for i in range(count)]
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(11))
    field = field_of(pipeline, guidance_scale=GUIDANCE, **conditions())
    classes = torch.tensor(labels)
    truth = bespoke.sample(bespoke.solver("rk4", 800), noise, lambda t, x: field(t, x, classes))

    original, found = pipeline.scheduler, {}

    def run(scheduler, steps):
        pipeline.scheduler = scheduler
        return pipeline(labels, steps, GUIDANCE, latents=noise)

    for name, (kind_of, settings, steps) in candidates(kind).items():
        runs = [run(kind_of(**({"prediction_type": "epsilon"} if kind == "vp" else {}), **s), steps) for s in settings]
        found[name] = min(runs, key=lambda samples: rmse(samples, truth))
    pipeline.scheduler = original
    # Noises of training and validation are others than those compared on.
    options = {"guidance_scale": GUIDANCE, "iterations": iterations, "batch": 200, "pool": 700, "validation": 300}
    rk2 = BespokeScheduler.fit(pipeline, family="rk2", steps=5, **options, **conditions())
    found["BespokeScheduler rk2"] = run(rk2, 5)
    pipeline.scheduler = original
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "rk2.json"
        bespoke.Theta.parse(rk2.config.theta[0]).save(start)
        ns = BespokeScheduler.fit(pipeline, family="ns", init=start, **options, **conditions())
    found["BespokeScheduler ns"] = run(ns, 10)
    return truth, found


def plot(results: dict, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(results), figsize=(6 * len(results), 9), squeeze=False)
    for column, (kind, (truth, found)) in enumerate(results.items()):
        names = list(found)
        bars, pictures = axes[0, column], axes[1, column]
        bars.barh(names, [rmse(found[name], truth) for name in names], color=["C1" if "Bespoke" in n else "C0" for n in names])
        bars.set(xscale="log", xlabel="RMSE against the ground truth", title=f"{kind}, guidance {GUIDANCE:g}")
        bars.invert_yaxis()
        # The ground truth, then each scheduler's difference from it.
        rows = [truth[:10]] + [(found[name] - truth)[:10] * 4 for name in names]
        pictures.imshow(torch.cat([torch.cat(list(row[:, 0]), 1) for row in rows]).clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
        pictures.set(xticks=[], yticks=[3.5 + 8 * i for i in range(len(rows))])
        pictures.set_yticklabels(["ground truth", *(f"{name}, error x 4" for name in names)], fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="+", default=["flow", "vp"], choices=["flow", "vp"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--out", help="a picture")
    arguments = parser.parse_args()
    results = {kind: compare(kind, arguments.count, arguments.iterations) for kind in arguments.kind}
    print(f"{'rmse at 10 evaluations':24}" + "".join(f"{kind:>12}" for kind in results))
    for name in next(iter(results.values()))[1]:
        print(f"{name:24}" + "".join(f"{rmse(found[name], truth):12.4f}" for truth, found in results.values()))
    if arguments.out:
        plot(results, arguments.out)


if __name__ == "__main__":
    main()
