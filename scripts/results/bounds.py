"""docs/fashion.md: where the error of a learned solver sits, and what more ground truth is worth. By name only, after `fashion`,
whose ladder, noises and ground truth it takes: a quarter of an hour of one core."""

import numpy as np
import page
from bespoke import at_once, card

MODEL = "fashion-fm-ot"
NFE = [4, 6, 10]
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
    return np.square(np.load(out) - np.load(truth)).reshape(len(np.load(truth)), -1).mean(1)


def tail(work):
    ladder = work.path("fashion", "error.json")
    for nfe in NFE:
        for name, solver in (("ns", f"{ladder}@{nfe}"), (PUBLISHED, f"{PUBLISHED}@{nfe}")):
            found = np.sort(squares(work, f"{name}-{nfe}", solver))
            worst = found[-round(WORST * len(found)) :]
            root = lambda values: f"{np.sqrt(values.mean()):.4f}"
            others = found[: -len(worst)]
            share = f"{100 * worst.sum() / found.sum():.0f} %"
            yield [str(nfe), f"`{name}`", root(found), f"{np.sqrt(np.median(found)):.4f}", share, root(others)]


def pool(work, count):
    out = work.path("bounds", f"pool-{count}.json")
    options = ["--family", "ns", "--nfe", POOLS_NFE, "--init", START, "--iterations", 10, "--validate-every", 1]
    work.train(out, MODEL, *options, "--pool", count, "--validation", 60, "--optimizer", "forward-gauss-newton")
    return f"{np.sqrt(squares(work, f'pool-{count}', out).mean()):.4f}"


def write(work):
    count = len(np.load(work.path("fashion", "peers", "noise.npy")))
    note = f"{count} fresh noises, `ns` of the first table and `{PUBLISHED}`."
    heading = ["nfe", "solver", "rmse", "median sample", f"share of the worst {WORST:.0%} in the squared error", "rmse of the others"]
    lines = [note, "", *page.table(heading, list(tail(work)))]
    errors = at_once([lambda size=size: pool(work, size) for size in POOLS])
    told = ", ".join(f"{error} from {size}" for size, error in zip(POOLS, errors))
    lines += ["", f"`ns` of {POOLS_NFE} evaluations from `{START}`, rmse there by the noises it was learned from: {told}."]
    page.replace("docs/fashion.md", "bounds", lines)
