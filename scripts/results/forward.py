"""docs/training.md: solvers learned from forward passes alone beside those learned by gradients, on the example
networks, by nfe: the rmse on fresh noises, and the evaluations that each took."""

import ladders
import page
from bespoke import MODELS, at_once

NFE = [8, 10, 16, 20, 32]
WAYS = {
    "gradients": ["--optimizer", "gauss-newton"],
    "forward": ["--optimizer", "forward-gauss-newton"],
}
SCHEDULE = ["--iterations", "30,12", "--validate-every", 3, "--patience", 4]
# By gradients RK2 does with less.
SCHEDULES = {("rk2", "gradients"): ["--batch", 200, "--iterations", "20,8", "--validate-every", 4, "--patience", 2]}


def ladder(work, model, family, way):
    return work.path(model, "forward", f"{family}-{way}.json")


def trained(work, model, way):
    """The ladders of one way: `ns` starts from its own `rk2`."""
    pool = work.path(model, "pool.safetensors")
    for family in ("rk2", "ns"):
        start = ["--init", ladder(work, model, "rk2", way)] if family == "ns" else []
        several = ",".join(map(str, NFE))
        options = [*ladders.LOSSES, *WAYS[way], *SCHEDULES.get((family, way), SCHEDULE), "--nfe", several, "--pool-file", pool]
        work.train(ladder(work, model, family, way), model, "--family", family, *start, *options)


def rows(work, model):
    places = [(family, way) for family in ("rk2", "ns") for way in WAYS]
    solvers = [f"{ladder(work, model, *place)}@{nfe}" for place in places for nfe in NFE]
    out = work.path(model, "forward", f"evaluation-{work.count}.json")
    results = work.evaluate(out, model, solvers, "--count", work.count, "--seed", 2)["results"]
    errors = {place: [r["rmse"] for r in results[i * len(NFE) :][: len(NFE)]] for i, place in enumerate(places)}
    costs = {place: ladders.spent(ladder(work, model, *place)) for place in places}
    for i, nfe in enumerate(NFE):
        cells = [f"`{model}`", str(nfe)]
        for family in ("rk2", "ns"):
            by = [(errors[family, way][i], costs[family, way][nfe]) for way in WAYS]
            cells += [f"{rmse:.5f} ({cost / 1e6:.2f})" for rmse, cost in by]
            cells.append(f"{by[1][0] / by[0][0]:.2f} ({by[1][1] / by[0][1]:.2f})")
        yield cells


def write(work):
    # The two ways share a pool, which the first of them makes.
    for way in WAYS:
        at_once([lambda model=model: trained(work, model, way) for model in MODELS])
    tables = at_once([lambda model=model: list(rows(work, model)) for model in MODELS])
    heading = ["model", "nfe"]
    for family in ("rk2", "ns"):
        heading += [f"`{family}`, gradients", f"`{family}`, forward passes", "forward / gradients"]
    note = f"rmse on {work.count} fresh noises (millions of evaluations to train, a backward one as two)."
    page.replace("docs/training.md", "forward", [note, "", *page.table(heading, [row for table in tables for row in table])])
