"""docs/training.md: the best published solver, the paper's training, RK2 on the error at the end, and ns, with the
velocity evaluations that each took."""

import ladders
import page
from bespoke import MODELS, allows, at_once

NFE = ladders.BOUND_NFE
FEW = 500  # noises on which the best published solver is chosen


def best_published(work, model):
    """The best published solver of each nfe, on other noises than those of the table: of all on their usual grids, and
    of the one and its grid that ns starts from."""
    listed = work.published()
    starts = ladders.starts(work.path(model, "ns.json"))
    best = []
    for nfe in NFE:
        names = [f"{solver['name']}@{nfe}" for solver in listed if allows(solver, nfe)] + [starts[nfe]]
        out = work.path(model, f"published-{nfe}.json")
        results = work.evaluate(out, model, names, "--count", FEW, "--seed", 1)["results"]
        best.append(min(results, key=lambda result: result["rmse"])["solver"])
    return best


def compare(work, model):
    """{name: the results at each nfe}, of all columns on the same noises."""
    names = ["published", *ladders.HEADINGS]
    solvers = best_published(work, model)
    solvers += [f"{work.path(model, name)}.json@{nfe}" for name in ladders.HEADINGS for nfe in NFE]
    out = work.path(model, f"trainings-{work.count}.json")
    results = work.evaluate(out, model, solvers, "--count", work.count, "--seed", 2)["results"]
    return {name: results[i * len(NFE) :][: len(NFE)] for i, name in enumerate(names)}


def rows(work, model, results):
    costs = {name: ladders.spent(work.path(model, f"{name}.json")) for name in ladders.HEADINGS}
    for i, nfe in enumerate(NFE):
        found = results["published"][i]
        cells = [str(nfe), f"{found['rmse']:.5f} ({found['psnr']:.1f}, `{found['solver'].replace(f'@{nfe}', '')}`)"]
        for name, cost in costs.items():
            found = results[name][i]
            cells.append(f"{found['rmse']:.5f} ({found['psnr']:.1f}; {cost[nfe] / 1e6:.2f})")
        paper = results["bound"][i]["rmse"]
        cells += [f"{results[name][i]['rmse'] / paper:.2f}" for name in ("rk2", "ns")]
        yield cells


def write(work):
    ladders.train(work)
    compared = at_once([lambda model=model: compare(work, model) for model in MODELS])
    heading = ["nfe", "best published", *ladders.HEADINGS.values(), "RK2 / paper", "ns / paper"]
    lines = []
    for model, results in zip(MODELS, compared):
        lines += ["", f"`{model}`", "", *page.table(heading, rows(work, model, results))]
    note = f"{work.count} fresh noises: rmse (psnr in dB; millions of evaluations to train, a backward one as two)."
    page.replace("docs/training.md", "trainings", [note, *lines])
