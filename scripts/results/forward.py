"""docs/training.md: solvers learned from forward passes alone beside those learned by gradients, on the example
networks, by nfe: the rmse on fresh noises, and the evaluations that each took."""

import ladders
import page
from bespoke import MODELS, at_once

FAMILIES = ["rk2", "ns"]
NFE = [8, 10]
WAYS = ["gradients", "forward"]
#: By forward passes, an iteration of which costs half of one by gradients for `ns`.
ITERATIONS = {"rk2": "30,12", "ns": "60,12"}


def train(work, model, family, way):
    """A ladder by gradients, as `trainings` has it, or by forward passes alone; all on the same ground truth."""
    out = work.path(model, f"{family}-by-{way}.json")
    forward = ["--optimizer", "forward-gauss-newton", "--iterations", ITERATIONS[family]]
    pace = [*forward, "--validate-every", 3, "--patience", 4] if way == "forward" else None
    return work.train(out, model, *ladders.options(work, model, family, NFE, pace))


def rows(work, model):
    places = [(family, way) for family in FAMILIES for way in WAYS]
    files = {place: train(work, model, *place) for place in places}
    solvers = [f"{files[place]}@{nfe}" for place in places for nfe in NFE]
    out = work.path(model, f"forward-{work.count}.json")
    results = work.evaluate(out, model, solvers, "--count", work.count, "--seed", 2)["results"]
    errors = {place: [r["rmse"] for r in results[i * len(NFE) :][: len(NFE)]] for i, place in enumerate(places)}
    costs = {place: ladders.spent(files[place]) for place in places}
    for i, nfe in enumerate(NFE):
        cells = [f"`{model}`", str(nfe)]
        for family in FAMILIES:
            by = [(errors[family, way][i], costs[family, way][nfe]) for way in WAYS]
            cells += [f"{rmse:.5f} ({cost / 1e6:.2f})" for rmse, cost in by]
            cells.append(f"{by[1][0] / by[0][0]:.2f} ({by[1][1] / by[0][1]:.2f})")
        yield cells


def write(work):
    tables = at_once([lambda model=model: list(rows(work, model)) for model in MODELS])
    heading = ["model", "nfe"]
    for family in FAMILIES:
        heading += [f"`{family}`, gradients", f"`{family}`, forward passes", "forward / gradients"]
    note = f"rmse on {work.count} fresh noises (millions of evaluations to train, a backward one as two)."
    page.replace("docs/training.md", "forward", [note, "", *page.table(heading, [row for table in tables for row in table])])
