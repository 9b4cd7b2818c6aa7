"""Time of one `step` in microseconds: BespokeScheduler next to diffusers' schedulers, on the same tensors, in one run.

    python bench/step.py [--shape 4 64 64] [--batch 1] [--repeats 7]

Schedulers take turns; a figure is the least of the repeats' means over a whole solve, so that what else the machine
does counts little. A ratio below 1 means that BespokeScheduler is the faster one.
"""

import argparse
import time

import torch
from bespoke_solver import BespokeScheduler, Theta
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)


def identity(steps: int) -> Theta:
    """Knots that change nothing; a learned theta costs the same."""
    knots = 2 * steps
    return Theta.parse(
        {
            "format": "bespoke-theta",
            "version": 1,
            "family": "rk2",
            "steps": steps,
            "t": [i / knots for i in range(knots + 1)],
            "t_dot": [1.0] * knots,
            "s": [1.0] * (knots + 1),
            "s_dot": [0.0] * knots,
        }
    )


def schedulers() -> dict:
    flow = {"prediction_type": "flow_prediction"}
    vp = {"prediction_type": "epsilon"}
    made = {
        "BespokeScheduler rk2, flow": (BespokeScheduler(identity(5), **flow), 5),
        "BespokeScheduler rk2, epsilon": (BespokeScheduler(identity(5), **vp), 5),
        "BespokeScheduler dpm++2m, epsilon": (BespokeScheduler(solver="dpm++2m", **vp), 10),
        "FlowMatchEulerDiscrete": (FlowMatchEulerDiscreteScheduler(), 10),
        "EulerDiscrete": (EulerDiscreteScheduler(**vp), 10),
        "HeunDiscrete": (HeunDiscreteScheduler(**vp), 5),
        "DDIM": (DDIMScheduler(clip_sample=False, **vp), 10),
        "DPMSolverMultistep": (DPMSolverMultistepScheduler(**vp), 10),
        "UniPCMultistep": (UniPCMultistepScheduler(**vp), 10),
        "DEISMultistep": (DEISMultistepScheduler(**vp), 10),
    }
    return made


def solve(scheduler, steps: int, output: torch.Tensor, sample: torch.Tensor) -> float:
    """Mean time of a step, in seconds; what pipelines do between steps is not counted."""
    scheduler.set_timesteps(steps)
    spent, timesteps = 0.0, scheduler.timesteps
    for t in timesteps:
        if isinstance(scheduler, (EulerDiscreteScheduler, HeunDiscreteScheduler)):
            scheduler.scale_model_input(sample, t)  # else they warn
        start = time.perf_counter()
        sample = scheduler.step(output, t, sample, return_dict=False)[0]
        spent += time.perf_counter() - start
    return spent / len(timesteps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[4, 64, 64])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = (arguments.batch, *arguments.shape)
    output, sample = torch.randn(shape), torch.randn(shape)
    every = schedulers()
    best = dict.fromkeys(every, float("inf"))
    rounds = max(1, min(20, 1_000_000 // output.numel()))
    for _ in range(arguments.repeats):
        for name, (scheduler, steps) in every.items():
            with torch.no_grad():
                solve(scheduler, steps, output, sample)
                mean = sum(solve(scheduler, steps, output, sample) for _ in range(rounds)) / rounds
            best[name] = min(best[name], mean)
    ours = {name: value for name, value in best.items() if name.startswith("Bespoke")}
    fastest = min(value for name, value in best.items() if name not in ours)
    print(f"{'scheduler, float32 ' + str(list(shape)):42} {'µs a step':>10} {'of the fastest of diffusers':>28}")
    for name, value in best.items():
        print(f"{name:42} {value * 1e6:10.1f} {value / fastest:28.2f}")


if __name__ == "__main__":
    main()
