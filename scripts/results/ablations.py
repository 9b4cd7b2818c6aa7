"""docs/training.md: families, losses, what is learned, L_tau, transfer between models, and memory against nfe."""

import json

import page
from bespoke import at_once, card

MODEL, OTHER = "digits-fm-ot", "digits-cosine"
DIRECT = ["--batch", 200, "--iterations", 20, "--validate-every", 5]
BOUND = ["--loss", "rmse-bound", "--iterations", 400]
FAMILIES, LEARNED, L_TAU = ["rk1", "rk2"], ["t,s", "t", "s"], [0.5, 1, 2, 5]


def train(work, name, *options, model=MODEL):
    dense = "-dense" if "rmse-bound" in options else ""
    pool = work.path(model, f"pool-800{dense}.safetensors")
    out = work.path(model, "ablations", f"{name}.json")
    work.train(out, model, *options, "--nfe", 10, "--pool", 800, "--pool-file", pool)
    return json.loads(out.read_text())["training"]


def rmse(notes, key="validation"):
    return f"{notes[key]['rmse']:.5f}"


def learned(work):
    """Rows by family and loss, columns by what is learned."""
    places = [(family, name, what) for family in FAMILIES for name in ("direct", "bound") for what in LEARNED]

    def job(family, name, what):
        loss = DIRECT if name == "direct" else BOUND
        return lambda: train(work, f"{family}-{name}-{what}", "--family", family, *loss, "--learn", what)

    found = dict(zip(places, at_once([job(*place) for place in places])))
    for family in FAMILIES:
        for name in ("direct", "bound"):
            cells = [found[family, name, what] for what in LEARNED]
            yield [f"`{family}`, {name}", rmse(cells[0], "start"), *map(rmse, cells)]


def l_tau(work):
    def job(value):
        return lambda: train(work, f"l-tau-{value}", "--family", "rk2", *BOUND, "--l-tau", value)

    return [rmse(notes) for notes in at_once([job(value) for value in L_TAU])]


def transfer(work):
    """Of each model: its own theta, the other's as it is, and the other's trained on."""
    own = {model: work.path(model, "ablations", "rk2-direct-t,s.json") for model in (MODEL, OTHER)}
    train(work, "rk2-direct-t,s", "--family", "rk2", *DIRECT, "--learn", "t,s", model=OTHER)
    for model, other in ((MODEL, OTHER), (OTHER, MODEL)):
        further = train(work, f"from-{other}", "--family", "rk2", *DIRECT, "--init", own[other], model=model)
        notes = json.loads(own[model].read_text())["training"]
        yield [f"`{model}`", rmse(notes, "start"), rmse(further, "start"), rmse(notes), rmse(further)]


def memory(work):
    """Of short trainings of ns."""
    for nfe in (8, 16, 32):
        folder = work.path(MODEL, "ablations")
        options = ["--family", "ns", "--nfe", nfe, "--init", f"euler@{nfe}", "--iterations", 3, "--pool", 400]
        options += ["--validation", 400, "--out", folder / f"memory-{nfe}.json"]
        peak = work.peak(folder / f"memory-{nfe}.txt", "train", "--quiet", "--model", card(MODEL), *options)
        # Batch x nfe velocities of 64 float32.
        yield [str(nfe), str(peak), f"{400 * nfe * 64 * 4 / 2**20:.1f}"]


def write(work):
    heading = ["", "start", *(f"`--learn {what}`" for what in LEARNED)]
    page.replace("docs/training.md", "learned", page.table(heading, learned(work)))
    page.replace("docs/training.md", "l_tau", page.table(["L_tau", *map(str, L_TAU)], [["rmse", *l_tau(work)]]))
    heading = ["model", "start", "the other's theta", "own training", "own training, from the other's theta"]
    page.replace("docs/training.md", "transfer", page.table(heading, transfer(work)))
    page.replace("docs/training.md", "memory", page.table(["nfe", "peak, MiB", "velocities kept, MiB"], memory(work)))
