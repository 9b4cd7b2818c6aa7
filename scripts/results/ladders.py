"""The ladders that several parts show: for each model, of the paper's training, and of RK2 and ns on the error at the
end."""

import json

from bespoke import MODELS, at_once, equivalents

NFE = [4, 6, 8, 10, 16, 20]
BOUND_NFE = [8, 10, 16, 20]
HEADINGS = {"bound": "RK2, bound, Adam (the paper)", "rk2": "RK2, direct", "ns": "ns"}
LOSSES = ["--loss", "log-mse,rmse"]  # validated by rmse: the last iterations minimise that


#: How each is trained.
PACE = {
    "bound": ["--iterations", 600],
    "rk2": ["--batch", 200, "--iterations", "20,8", "--validate-every", 4, "--patience", 2],
    "ns": ["--optimizer", "gauss-newton", "--iterations", "30,12", "--validate-every", 3, "--patience", 4],
}


def options(work, model, name, nfe=None, pace=None):
    several = ",".join(map(str, nfe or (BOUND_NFE if name == "bound" else NFE)))
    pool = work.path(model, "pool-dense.safetensors" if name == "bound" else "pool.safetensors")
    family = {
        "bound": ["--family", "rk2", "--loss", "rmse-bound"],
        "rk2": ["--family", "rk2", *LOSSES],
        "ns": ["--family", "ns", "--init", "regridded", *LOSSES],
    }
    return [*family[name], *(pace or PACE[name]), "--nfe", several, "--pool-file", pool]


def train(work, names=tuple(HEADINGS), models=MODELS):
    """{(model, name): ladder file}."""
    ladders = {}
    # ns finds the ground truth of rk2.
    for group in ([name for name in names if name != "ns"], [name for name in names if name == "ns"]):
        places = [(model, name) for model in models for name in group]

        def job(model, name):
            return lambda: work.train(work.path(model, f"{name}.json"), model, *options(work, model, name))

        ladders |= zip(places, at_once([job(*place) for place in places]))
    return ladders


def spent(ladder):
    """{nfe: the forward evaluations, a backward one as two, that the rung of a ladder file took}."""
    rungs = json.loads(ladder.read_text())["rungs"]
    stages = {"rk2": 2, "ns": 1}
    return {stages[rung["family"]] * rung["steps"]: equivalents(rung["training"]["evaluations"]) for rung in rungs}


def starts(ladder):
    """{nfe: the published solver that an ns rung of a ladder file began at}."""
    return {rung["steps"]: rung["training"]["start"]["solver"] for rung in json.loads(ladder.read_text())["rungs"]}
