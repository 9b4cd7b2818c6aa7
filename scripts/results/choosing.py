"""docs/choosing.md: how far a budget of training goes, in evaluations of the network, by forward passes alone."""

import json

import page
from bespoke import at_once, equivalents

MODELS = ["digits-fm-ot-onnx", "photos-fm-ot-onnx"]
NFE = 8
BUDGETS = [10_000, 30_000, 100_000, 300_000]
#: The best of the published ones at this nfe on some of the models, and the usual one.
PUBLISHED = [f"{name}@{NFE}" for name in ("midpoint", "dpm++2m", "deis2", "deis3", "ab3", "unipc")]


def theta(work, model, family, budget):
    out = work.path(model, "choosing", f"{family}-{budget}.json")
    return work.train(out, model, "--family", family, "--nfe", NFE, "--budget", budget)


def rows(work, model):
    thetas = {(family, budget): theta(work, model, family, budget) for family in ("rk2", "ns") for budget in BUDGETS}
    out = work.path(model, "choosing", f"evaluation-{work.count}.json")
    named = [*map(str, thetas.values()), *PUBLISHED]
    results = work.evaluate(out, model, named, "--count", work.count, "--seed", 4)["results"]
    errors = dict(zip([*thetas, *PUBLISHED], (result["rmse"] for result in results)))
    best = min(PUBLISHED, key=errors.get)
    for family in ("rk2", "ns"):
        cells = []
        for budget in BUDGETS:
            training = json.loads(thetas[family, budget].read_text())["training"]
            spent = equivalents(training["evaluations"]) / 1000
            cells.append(f"{errors[family, budget]:.4f} ({spent:.0f})")
        yield [f"`{model}`", f"`{family}`", *cells, f"{errors[best]:.4f} (`{best.removesuffix(f'@{NFE}')}`)"]


def write(work):
    tables = at_once([lambda model=model: list(rows(work, model)) for model in MODELS])
    heading = ["model", "family", *(f"{budget // 1000} thousand" for budget in BUDGETS), "best published"]
    page.replace("docs/choosing.md", "budgets", page.table(heading, [row for table in tables for row in table]))
