"""Searches without gradients for a solver of a given number of evaluations, for comparison with `bespoke train`:

    scripts/peers.py CARD --noise NOISE.npy --truth TRUTH.npy [--nfe 10] [--budget 700000] --out FOUND.json

- CMA-ES on the table that family `ns` learns: times, and every row's weights of the noise and of the velocities so far,
  from midpoint's. Each generation is judged on the same few samples, anew for each.
- The time grid that dynamic programming finds on the teacher's path: the sum of the errors of single steps of Euler's and
  midpoint's rule from points on it is the least.

The first noises are searched on, the last `--validation` judge. CARD is of runtime onnx and path fm-ot, with classes; sample i
has class i mod classes. Evaluations are of one sample; those of the ground truth are not counted.
"""

import argparse
import json
from pathlib import Path

import cma
import numpy as np
import onnxruntime


class Network:
    """Velocities, and how many were asked for."""

    def __init__(self, path):
        card = json.loads(path.read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path.parent / card["weights"], options, providers=["CPUExecutionProvider"])
        self.classes, self.shape, self.evaluations = card["classes"], card["shape"], 0

    def __call__(self, t, x, rows):
        self.evaluations += len(x)
        feeds = {"t": np.full(len(x), t, np.float32), "class": rows % self.classes}
        feeds["x"] = x.reshape(len(x), *self.shape).astype(np.float32)
        return self.session.run(None, feeds)[0].reshape(x.shape).astype(float)


class Table:
    """x_(k+1) = a_k x_0 + sum_j b_kj u_j, u_k = u(t_k, x_k), as one vector: t_1 ..., then a_k, b_k0 ... b_kk of each row."""

    def __init__(self, nfe):
        self.nfe = nfe

    def midpoint(self):
        times, rows = np.arange(self.nfe) / self.nfe, []
        step, past = 2 / self.nfe, np.zeros(self.nfe)
        for k in range(self.nfe):
            weights = past.copy()
            weights[k] += step if k % 2 else step / 2
            if k % 2:
                past = weights
            rows.append(np.concatenate([[1], weights[: k + 1]]))
        return np.concatenate([times[1:], *rows])

    def solve(self, numbers, network, x, rows):
        times, at = np.concatenate([[0], numbers[: self.nfe - 1]]), self.nfe - 1
        state, velocities = x, []
        for k, t in enumerate(times):
            velocities.append(network(t, state, rows))
            a, b = numbers[at], numbers[at + 1 : at + 2 + k]
            state, at = a * x + sum(weight * u for weight, u in zip(b, velocities)), at + 2 + k
        return state


def errors(found, truth):
    """Of each sample."""
    return np.sqrt(((found - truth) ** 2).mean(1))


def evolution(network, table, x, truth, samples, validation, budget, seed):
    """CMA-ES: [[evaluations, rmse of the mean on the validation], ...]."""
    rng = np.random.default_rng(seed)
    search = cma.CMAEvolutionStrategy(table.midpoint(), 3e-3, {"seed": seed, "verbose": -9})
    curve, pool = [], len(x) - validation
    held = np.arange(pool, len(x))
    while network.evaluations < budget:
        rows = rng.choice(pool, samples, replace=False)
        candidates = search.ask()
        solved = [table.solve(candidate, network, x[rows], rows) for candidate in candidates]
        search.tell(candidates, [float(np.log((errors(found, truth[rows]) ** 2).mean())) for found in solved])
        spent = network.evaluations
        if search.countiter % 5 == 0 or spent >= budget:
            found = table.solve(search.mean, network, x[held], held)
            curve.append([spent, rmse(found, truth[held])])
            network.evaluations = spent
    return curve


def rmse(found, truth):
    return float(errors(found, truth).mean())


def grid_search(network, x, count, nfe, points=60):
    """For each rule of so many evaluations a step: the evaluations that the search took, and its grid."""
    rows, fine = np.arange(count), np.linspace(0, 1, points + 1)
    # The teacher's path, by RK4 on a finer grid than any step.
    path, velocities, state = [x[:count]], [], x[:count]
    for t, end in zip(fine, fine[1:]):
        h, u = end - t, network(t, state, rows)
        v = network(t + h / 2, state + h / 2 * u, rows)
        w = network(t + h / 2, state + h / 2 * v, rows)
        z = network(end, state + h * w, rows)
        state = state + h / 6 * (u + 2 * v + 2 * w + z)
        velocities.append(u)
        path.append(state)
    walked = network.evaluations
    for rule, stages in (("euler", 1), ("midpoint", 2)):
        network.evaluations = walked
        cost = np.full((points, points + 1), np.inf)
        for i in range(points):
            # No step is longer than four even ones.
            for j in range(i + 1, min(points, i + 4 * stages * points // nfe) + 1):
                h, u = fine[j] - fine[i], velocities[i]
                if stages == 2:
                    u = network(fine[i] + h / 2, path[i] + h / 2 * u, rows)
                cost[i, j] = errors(path[i] + h * u, path[j]).mean()
        steps = nfe // stages
        best, came = np.full((steps + 1, points + 1), np.inf), np.zeros((steps + 1, points + 1), int)
        best[0, 0] = 0
        for step in range(1, steps + 1):
            total = best[step - 1, :points, None] + cost
            best[step], came[step] = total.min(0), total.argmin(0)
        grid, at = [points], points
        for step in range(steps, 0, -1):
            at = came[step, at]
            grid.append(at)
        yield rule, network.evaluations, fine[grid[::-1]]


def on_grid(network, rule, grid, x, rows):
    state = x
    for t, end in zip(grid, grid[1:]):
        h, u = end - t, network(t, state, rows)
        if rule == "midpoint":
            u = network(t + h / 2, state + h / 2 * u, rows)
        state = state + h * u
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--nfe", type=int, default=10)
    parser.add_argument("--samples", type=int, default=30, help="of a generation, and of the grids' search [default: 30]")
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=700_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    network, table = Network(given.card), Table(given.nfe)
    x, truth = (np.load(path) for path in (given.noise, given.truth))
    x, truth = x.reshape(len(x), -1).astype(float), truth.reshape(len(x), -1).astype(float)
    held = np.arange(len(x) - given.validation, len(x))
    found = {"midpoint": rmse(table.solve(table.midpoint(), network, x[held], held), truth[held])}
    network.evaluations = 0
    for rule, spent, grid in list(grid_search(network, x, given.samples, given.nfe)):
        solved = on_grid(network, rule, grid, x[held], held)
        found[f"{rule} on its grid"] = {"evaluations": spent, "rmse": rmse(solved, truth[held]), "grid": grid.tolist()}
    network.evaluations = 0
    found["cma"] = evolution(network, table, x, truth, given.samples, given.validation, given.budget, given.seed)
    given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
