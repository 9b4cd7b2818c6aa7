"""What others learn for few evaluations, as their papers describe it, in the terms of family `ns` and with the loss of this
library's `features`, for comparison with `bespoke train --loss features`:

    scripts/few.py CARD PEER --layers LAYERS.pt --noise NOISE.npy --truth TRUTH.npy --nfe N --budget EVALUATIONS --out THETA.json

- ld3 (Tong et al., "Learning to Discretize Denoising Diffusion ODEs"): the time grid of a published multistep solver,
  here Adams-Bashforth of order 3 for any grid, and the times that the network is told, apart from the grid's. The end is compared
  from a start that may move by a small radius.
- s4s (Frankel et al., "S4S: Solving for a Diffusion Model Solver"): the weights of the last three velocities at every
  step, and the grid, in turns; the start may move as well.
- gs (the "generalized solver"): weights of the noise and of all velocities so far at every step and all times, as
  corrections to Adams-Bashforth's.

With --classifier CLASSIFIER.pt in place of --layers and --truth, what is minimised is the cross-entropy of the class that was
asked for, as a network sees it: a loss without a teacher.

All by Adam with cosine decay, a forward and a backward pass counted as three evaluations; the best on the held-out last samples is
kept. CARD is of runtime torchscript, with classes, or with one other input: sample i has class i mod classes, or row i mod rows
of that input in a file of conditions. With --guidance-scale an evaluation of a model with classes is two passes, and counts as
one, as the budget of `bespoke train` has it.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from bespoke_solver import velocity_scalars
from safetensors.torch import load_file

ORDER = 3
#: How far a start may move, in standard deviations of the noise.
RADIUS = 0.01


def adams_bashforth(times):
    """Weights of the last velocities in each step of a grid t_0 ... t_N, differentiable by it: rows of up to ORDER."""
    rows = []
    for k in range(len(times) - 1):
        past = [times[j] for j in range(max(0, k - ORDER + 1), k + 1)]
        h, row = times[k + 1] - times[k], []
        for i, own in enumerate(past):
            # The integral of the Lagrange polynomial, whose degree is at most 2, by Gauss's rule of two points: exact.
            weight = 0
            for node in (-1 / math.sqrt(3), 1 / math.sqrt(3)):
                t = times[k] + h * (1 + node) / 2
                value = torch.ones((), dtype=times.dtype)
                for j, other in enumerate(past):
                    if j != i:
                        value = value * (t - other) / (own - other)
                weight = weight + h / 2 * value
            row.append(weight)
        rows.append(row)
    return rows


class Peer(torch.nn.Module):
    """Numbers that come to a table: times, a_k, and b_k0 ... b_kk for x_(k+1) = a_k x_0 + sum_j b_kj u_j."""

    def __init__(self, name, nfe):
        super().__init__()
        zeros = lambda *shape: torch.nn.Parameter(torch.zeros(*shape, dtype=torch.float64))
        self.name, self.nfe = name, nfe
        self.steps = zeros(nfe)
        self.told = zeros(nfe)
        self.weights = zeros(nfe, nfe)
        self.noise = zeros(nfe)

    def groups(self):
        """What is learned, together or in turns."""
        return {
            "ld3": [[self.steps, self.told]],
            "s4s": [[self.weights], [self.steps]],
            "gs": [[self.steps, self.told, self.weights, self.noise]],
        }[self.name]

    def table(self):
        grid = torch.cat([torch.zeros(1, dtype=torch.float64), torch.softmax(self.steps, 0).cumsum(0)])
        base = adams_bashforth(grid)
        past, rows = torch.zeros(self.nfe, dtype=torch.float64), []
        for k, row in enumerate(base):
            first = k + 1 - len(row)
            mask = torch.zeros(self.nfe, dtype=torch.float64)
            mask[first if self.name == "s4s" else 0 : k + 1] = 0 if self.name == "ld3" else 1
            own = torch.zeros(self.nfe, dtype=torch.float64)
            own = own.index_add(0, torch.arange(first, k + 1), torch.stack(row)) + mask * self.weights[k]
            past = past + own
            rows.append(past[: k + 1])
        told = torch.cat([grid[:1], (grid[1:-1] + self.told[1:]).clamp(0, 1)])
        noise = 1 + (self.noise if self.name == "gs" else 0 * self.noise)
        return told, noise, rows


class Velocity:
    """The velocity of a card's network, guided, in solver time [0, 1]: differentiable by the state and by time."""

    def __init__(self, card, network, scale):
        time = card.get("time", {})
        for key, value in {"guidance": card.get("guidance"), "time.dtype": time.get("dtype"), "time.shape": time.get("shape")}.items():
            if value is not None:
                raise SystemExit(f"{key} of the card is {value}: only cards without it are understood here")
        if card["scheduler"]["name"] == "edm":
            raise SystemExit("the card's scheduler is edm, whose networks are told sigma for the time: not understood here")
        if scale != 1 and "null_class" not in card:
            raise SystemExit("the card has no null_class, which guidance needs")
        self.scheduler, self.output, self.network, self.scale = card["scheduler"], card["output"], network, scale
        self.null = card["null_class"] if scale != 1 else None
        self.reverse, self.end = time.get("direction") == "data-to-noise", time.get("end", 1)
        self.unit, self.offset = time.get("scale", 1), time.get("offset", 0)

    def __call__(self, x, time, told):
        t = self.end * time
        known = velocity_scalars(self.scheduler, self.output, [t.item()])[0]
        # First order, by which the derivative along time is exact.
        moved = t - t.detach()
        of_state, of_output = known.x + known.x_dot * moved, known.output + known.output_dot * moved
        regular = known.t + moved
        seen = (self.unit * (1 - regular if self.reverse else regular) + self.offset).float().expand(len(x))
        out = self.network(x, seen, told)
        if self.null is not None:
            without = self.network(x, seen, torch.full_like(told, self.null))
            out = without + self.scale * (out - without)
        return self.end * (of_state.float() * x + of_output.float() * out)


def solve(velocity, table, x, told):
    times, noise, rows = table
    state, velocities = x, []
    for t, a, row in zip(times, noise, rows):
        velocities.append(velocity(state, t, told))
        state = a.float() * x + sum(b.float() * u for b, u in zip(row, velocities))
    return state


def of_layers(layers, truth):
    """The logarithm of each sample's distance from the ground truth, in the layers of a network."""
    unit = lambda x: torch.nn.functional.normalize(layers(x), dim=1)
    return lambda found, rows: (unit(found) - unit(truth[rows])).square().sum(1).clamp(min=1e-8).log()


def of_classes(classifier, told):
    """Each sample's cross-entropy of the class that was asked for."""
    return lambda found, rows: torch.nn.functional.cross_entropy(classifier(found), told[rows], reduction="none")


def learn(given, velocity, losses, x, told, rate):
    """The best mean loss of the held-out samples, and the table it belongs to."""
    torch.manual_seed(given.seed)
    peer, held = Peer(given.peer, given.nfe), slice(len(x) - given.validation, len(x))
    optimizers = [torch.optim.Adam(group, rate) for group in peer.groups()]
    iterations = given.budget // (3 * given.batch * given.nfe)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, max(1, iterations // len(optimizers))) for o in optimizers]
    moved = torch.zeros_like(x)
    radius = RADIUS * math.sqrt(x[0].numel())
    best = (math.inf, None)
    for iteration in range(iterations + 1):
        if iteration % max(1, iterations // 12) == 0 or iteration == iterations:
            with torch.no_grad():
                table = peer.table()
                found = solve(velocity, table, x[held], told[held])
                score = losses(found, held).mean().item()
                if score < best[0]:
                    best = (score, [peer_numbers(part) for part in table])
        rows = torch.randperm(len(x) - given.validation)[: given.batch]
        start = (x[rows] + moved[rows]).requires_grad_(given.peer != "gs")
        loss = losses(solve(velocity, peer.table(), start, told[rows]), rows).mean()
        turn = iteration % len(optimizers)
        optimizers[turn].zero_grad()
        loss.backward()
        optimizers[turn].step()
        schedules[turn].step()
        if given.peer != "gs":
            with torch.no_grad():
                gradient = start.grad.flatten(1)
                step = moved[rows].flatten(1) - radius / 4 * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
                length = step.norm(dim=1, keepdim=True)
                moved[rows] = (step * (radius / length.clamp(min=radius))).reshape(moved[rows].shape)
    return best


def peer_numbers(part):
    return [row.tolist() for row in part] if isinstance(part, list) else part.tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("peer", choices=["ld3", "s4s", "gs"])
    seen_by = parser.add_mutually_exclusive_group(required=True)
    seen_by.add_argument("--layers", type=Path)
    seen_by.add_argument("--classifier", type=Path, help="of a model with classes")
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--truth", type=Path, help="with --layers")
    parser.add_argument("--conditions", type=Path, help="of a model without classes")
    parser.add_argument("--guidance-scale", type=float, default=1, help="of a model with classes [default: 1]")
    parser.add_argument("--nfe", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True, help="of each learning rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3], help="of several the best is kept [default: 5e-3]")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.layers and not given.truth:
        parser.error("--layers compares with the ground truth: --truth says which")
    torch.set_num_threads(1)
    card = json.loads(given.card.read_text())
    network, seen_by = (torch.jit.load(path) for path in (given.card.parent / card["weights"], given.layers or given.classifier))
    read = lambda path: torch.from_numpy(np.load(path).reshape(-1, *card["shape"])).float()
    velocity = Velocity(card, network, given.guidance_scale)
    x = read(given.noise)
    if given.conditions:
        (rows,) = load_file(given.conditions).values()
        told = rows[torch.arange(len(x)) % len(rows)]
    else:
        told = torch.arange(len(x)) % card["classes"]
    losses = of_layers(seen_by, read(given.truth)) if given.layers else of_classes(seen_by, told)
    found = {rate: learn(given, velocity, losses, x, told, rate) for rate in given.rates}
    rate = min(found, key=lambda rate: found[rate][0])
    score, (times, noise, rows) = found[rate]
    training = {"peer": given.peer, "lr": rate, "budget": given.budget, "loss": score}
    theta = {"format": "bespoke-theta", "version": 1, "family": "ns", "t": times, "a": noise, "b": rows, "training": training}
    given.out.write_text(json.dumps(theta) + "\n")
    print(f"{given.peer}@{given.nfe}: lr {rate}, loss {score:.4f}")


if __name__ == "__main__":
    main()
