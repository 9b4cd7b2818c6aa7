"""docs/fashion.md: where the error of a learned solver sits, and what more ground truth is worth. By name only, after `fashion`
and `passes`, whose ladders, noises and ground truth it takes: a quarter of an hour of one core."""

import numpy as np
import page
from bespoke import at_once, card

MODEL = "fashion-fm-ot"
NFE = [4, 6, 8, 10]
PUBLISHED = "unipc"
#: The samples that are called the worst.
WORST = 0.05
POOLS = [30, 100, 300]
POOLS_NFE, START = 6, "ab2@6:power=1.3"


def squares(work, name, solver):
    """The mean squared error of each of the noises that `fashion` drew for what others learn."""
    noise, truth = (work.path("fashion", "peers", f"{of}.npy") for of in ("noise", "truth"))
    out = work.path("bounds", f"{name}.npy")
    work.make(out, "sample", "--model", card(MODEL), "--noise", noise, "--solver", solver, "--out", out)
    error = np.load(out) - np.load(truth)
    return np.square(error).reshape(len(error), -1).mean(1)


def root(values):
    return f"{np.sqrt(values.mean()):.4f}"


def split(found):
    """The worst samples, and the others."""
    found = np.sort(found)
    worst = round(WORST * len(found))
    return found[-worst:], found[:-worst]


def tail(work):
    ways = {"`ns`": "error", "`ns`, by forward passes alone": "forward"}
    for nfe in NFE:
        solvers = {name: f"{work.path('fashion', way)}.json@{nfe}" for name, way in ways.items()}
        for i, (name, solver) in enumerate([*solvers.items(), (f"`{PUBLISHED}`", f"{PUBLISHED}@{nfe}")]):
            found = squares(work, f"{i}-{nfe}", solver)
            worst, others = split(found)
            share = f"{100 * worst.sum() / found.sum():.0f} %"
            yield [str(nfe), name, root(found), f"{np.sqrt(np.median(found)):.4f}", share, root(others)]


def pool(work, count):
    out = work.path("bounds", f"pool-{count}.json")
    options = ["--family", "ns", "--nfe", POOLS_NFE, "--init", START, "--iterations", 10, "--validate-every", 1]
    work.train(out, MODEL, *options, "--pool", count, "--validation", 60, "--optimizer", "forward-gauss-newton")
    found = squares(work, f"pool-{count}", out)
    return f"{root(split(found)[1])} ({root(found)} of all)"


def write(work):
    count = len(np.load(work.path("fashion", "peers", "noise.npy")))
    note = f"{count} fresh noises, `ns` of the first table and `{PUBLISHED}`."
    heading = ["nfe", "solver", "rmse", "median sample", f"share of the worst {WORST:.0%} in the squared error", "rmse of the others"]
    lines = [note, "", *page.table(heading, list(tail(work)))]
    errors = at_once([lambda size=size: pool(work, size) for size in POOLS])
    told = ", ".join(f"{error} from {size}" for size, error in zip(POOLS, errors))
    lines += ["", f"`ns` of {POOLS_NFE} evaluations from `{START}`, rmse of the others, by the noises it was learned from: {told}."]
    page.replace("docs/fashion.md", "bounds", lines)
