#!/usr/bin/env python3
"""Action error and latency of a policy of LeRobot's by evaluations: its own Euler loop, published solvers, learned ones.

    python examples/hosts/robot/measure.py
    python examples/hosts/robot/measure.py --latencies      the second table alone, which takes no training

Trains the small smolvla of reach.py, learns a theta for each number of evaluations by `bespoke_solver.lerobot.fit`, and
prints two tables in Markdown. The error is the root mean square over a chunk's actions against the policy's own loop
finely solved, of observations and noises that were not learned from; latency is that of ``predict_action_chunk`` for one
observation, and of a chunk in control.cpp with the policy's action expert, in ONNX Runtime and as a package of
AOTInductor, one thread each.
"""

import argparse
import tempfile
import time
from pathlib import Path

import bespoke_solver as bespoke
import control
import torch
from bespoke_solver import lerobot
from expert import export, kept_of, write_observation
from reach import HORIZON, WIDTH, observations, policy_of, trained

EVALUATIONS = (2, 3, 4, 5, 10)
PUBLISHED = ("midpoint", "heun", "ralston", "rk4", "ab2", "ab3", "ab4", "ddim", "dpm++2m", "dpm++3m", "deis", "unipc", "ipndm")
TRAINING = {"optimizer": "gauss-newton", "iterations": 24, "batch": 96, "pool": 192, "validation": 96, "atol": 3e-4, "rtol": 3e-4}


@torch.no_grad()
def actions_of(policy, batch, noise, theta=None):
    """The policy's own ``predict_action_chunk``, with its loop or a theta in it."""
    if theta is not None:
        lerobot.install(policy, theta)
    try:
        return policy.predict_action_chunk(dict(batch), noise=noise.clone())
    finally:
        lerobot.uninstall(policy)


def euler(policy, batch, noise, steps):
    """The policy's own loop with so many steps."""
    before, policy.config.num_steps = policy.config.num_steps, steps
    try:
        return actions_of(policy, batch, noise)
    finally:
        policy.config.num_steps = before


def rmse(found, truth):
    return float((found - truth).square().flatten(1).mean(1).sqrt().mean())


def best_published(policy, batch, noise, truth, nfe):
    """The error and the name of the best published solver with exactly so many evaluations."""
    errors = {}
    for name in PUBLISHED:
        try:
            theta = bespoke.solver(name, nfe)
        except bespoke.BespokeError:
            continue  # not with so many
        errors[name] = rmse(actions_of(policy, batch, noise, theta), truth)
    name = min(errors, key=errors.get)
    return errors[name], name


def learned(policy, batches, nfe, training):
    """A theta of each family that can have so many evaluations."""
    families = ["ns"] + (["rk2"] if nfe % 2 == 0 else [])
    return {family: lerobot.fit(policy, batches, family=family, nfe=nfe, progress=False, **training) for family in families}


def milliseconds(run, repeats=60):
    """The median of a call."""
    times = []
    for _ in range(repeats + 5):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return 1e3 * sorted(times[5:])[repeats // 2]


def errors(policy, thetas, batch, noise):
    """A line for each number of evaluations."""
    truth = euler(policy, batch, noise, 2000)
    check = rmse(euler(policy, batch, noise, 1000), truth)
    print(f"Ground truth: the policy's own loop with 2000 steps; with 1000 it is {check:.5f} from it.\n")
    print("| evaluations | the policy's Euler | best published | learned, `rk2` | learned, `ns` |\n| --- | --- | --- | --- | --- |")
    for nfe, families in thetas.items():
        error, name = best_published(policy, batch, noise, truth, nfe)
        cells = [f"{rmse(actions_of(policy, batch, noise, families[f]), truth):.4f}" if f in families else "–" for f in ("rk2", "ns")]
        print(f"| {nfe} | {rmse(euler(policy, batch, noise, nfe), truth):.4f} | {error:.4f} (`{name}`) | {' | '.join(cells)} |")


def latencies(policy, thetas, folder):
    batch, noise = observations(1, seed=3), torch.randn((1, HORIZON, WIDTH), generator=torch.Generator().manual_seed(3))
    kept = kept_of(policy, batch)
    cards = {runtime: export(policy, folder / f"{runtime}.json", kept, runtime) for runtime in ("onnx", "pt2")}
    write_observation(folder / "observation", kept, noise[0])
    program = control.build(folder)
    print("\n| evaluations | policy, Euler | policy, theta | chunk, ONNX | worst step of 10,000 | chunk, `.pt2` | worst step of 10,000 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for nfe, families in thetas.items():
        families["ns"].save(folder / "theta.json")
        own = milliseconds(lambda nfe=nfe: euler(policy, batch, noise, nfe))
        lerobot.install(policy, families["ns"])
        theta = milliseconds(lambda: policy.predict_action_chunk(dict(batch), noise=noise.clone()))
        lerobot.uninstall(policy)
        found = [control.run(program, folder / "theta.json", card, folder / "observation") for card in cards.values()]
        cells = [f"{nfe * one['median'] / 1e3:.2f} ms | {one['worst'] / 1e3:.2f} ms" for one in found]
        print(f"| {nfe} | {own:.2f} ms | {theta:.2f} ms | {' | '.join(cells)} |")
    print(f"\nOf the last runs: {dict(zip(cards, found))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1500, help="of the policy's training")
    parser.add_argument("--latencies", action="store_true", help="alone, of random weights and published solvers: they take as long")
    parser.add_argument("--count", type=int, default=128, help="observations that errors are measured on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if arguments.latencies:
            thetas = {nfe: {"ns": bespoke.solver("ab2", nfe).compile()} for nfe in EVALUATIONS}
            latencies(policy_of(folder / "model"), thetas, folder)
            return
        policy = trained(folder / "model", arguments.iterations)
        batches = [observations(64, seed=1)]
        thetas = {nfe: learned(policy, batches, nfe, TRAINING) for nfe in EVALUATIONS}
        noise = torch.randn((arguments.count, HORIZON, WIDTH), generator=torch.Generator().manual_seed(2))
        errors(policy, thetas, observations(arguments.count, seed=2), noise)
        latencies(policy, thetas, folder)


if __name__ == "__main__":
    main()
