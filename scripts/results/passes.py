"""docs/training.md: `ns` of few evaluations by gradients and by forward passes alone: the ladders of `fashion` and
`fashion-ddpm`, and of two small networks by the defaults. By name only."""

import json

import page
from bespoke import at_once, learning
from three_to_ten import SUBJECTS, learned, several, shared

LARGE = ["fashion", "fashion-ddpm"]
SMALL = ["digits-fm-ot", "photos-fm-ot"]
NFE = [4, 6, 8]
WAYS = {"gradients": "gauss-newton", "forward": "forward-gauss-newton"}


def small(work, model, way):
    out, pool = (work.path("few", f"{model}{end}") for end in (f"-{WAYS[way]}.json", ".safetensors"))
    options = ["--family", "ns", "--nfe", several(NFE), "--optimizer", WAYS[way], "--pool-file", pool]
    return work.train(out, model, *options)


def large(work, subject):
    """The ladder by gradients that the subject's own part has, and one by forward passes."""
    gradients = learned(work, subject)["error"]
    forward = ["--family", "ns", "--nfe", several(subject.nfe), "--optimizer", WAYS["forward"], "--iterations", 10]
    out = work.path(subject.part, "forward.json")
    work.train(out, subject.model, *forward, "--validate-every", 1, *shared(work, subject))
    return {"gradients": gradients, "forward": out}


def found(ladder):
    """{nfe: the rmse of validation, and evaluations to learn}."""
    notes = {rung["steps"]: rung["training"] for rung in json.loads(ladder.read_text())["rungs"]}
    return {nfe: (training["validation"]["rmse"], learning(training)) for nfe, training in notes.items()}


def rows(work, model, ways):
    gradients, forward = (found(ways[way]) for way in WAYS)
    for nfe, (rmse, cost) in gradients.items():
        other, other_cost = forward[nfe]
        cells = [f"{error:.4f} ({spent / 1e3:.0f})" for error, spent in ((rmse, cost), (other, other_cost))]
        yield [f"`{model}`", str(nfe), *cells, f"{other / rmse:.2f} ({other_cost / cost:.2f})"]


def write(work):
    ladders = {subject.model: large(work, subject) for subject in SUBJECTS if subject.part in LARGE}
    # The second of a model has the ground truth of the first.
    both = at_once([lambda model=model: {way: small(work, model, way) for way in WAYS} for model in SMALL])
    ladders |= zip(SMALL, both)
    table = [row for model, ways in ladders.items() for row in rows(work, model, ways)]
    heading = ["model", "nfe", "gradients", "forward passes", "forward / gradients"]
    note = "rmse on the noises of validation (thousands of evaluations to learn, a backward one as two, ground truth aside)."
    page.replace("docs/training.md", "passes", [note, "", *page.table(heading, table)])
