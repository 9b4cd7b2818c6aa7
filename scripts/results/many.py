"""docs/training.md: `ns` of many evaluations by forward passes alone beside gradients, where an exact Jacobian is dear."""

import json

import page
from bespoke import at_once, learning

MODELS = ["digits-fm-ot", "photos-fm-ot"]
NFE = [10, 16, 20, 32]
PUBLISHED = ["midpoint", "unipc"]
WAYS = {"gradients": "gauss-newton", "forward": "forward-gauss-newton"}
FRESH = 1000


def trained(work, model, nfe, way):
    out = work.path("many", f"{model}-{nfe}-{way}.json")
    pool = work.path("many", f"{model}.safetensors")
    options = ["--family", "ns", "--nfe", nfe, "--init", f"midpoint@{nfe}", "--validation", 300, "--validate-every", 3]
    return work.train(out, model, *options, "--pool", 600, "--pool-file", pool, "--optimizer", WAYS[way])


def row(work, model, nfe):
    thetas = [trained(work, model, nfe, way) for way in WAYS]
    out = work.path("many", f"on-{model}-{nfe}.json")
    solvers = [*thetas, *(f"{name}@{nfe}" for name in PUBLISHED)]
    results = work.evaluate(out, model, solvers, "--count", FRESH, "--seed", 2)["results"]
    *learned, first, second = (result["rmse"] for result in results)
    notes = [json.loads(theta.read_text())["training"] for theta in thetas]
    costs = [learning(each) for each in notes]
    cells = [f"{rmse:.5f} ({cost / 1e6:.2f})" for rmse, cost in zip(learned, costs)]
    ratios = f"{learned[1] / learned[0]:.2f} ({costs[1] / costs[0]:.2f})"
    return [f"`{model}`", str(nfe), *cells, ratios, f"{first:.5f}", f"{second:.5f}"]


def write(work):
    # The ground truth that a model's first run solves for is the others' too.
    for model in MODELS:
        trained(work, model, NFE[0], "gradients")
    places = [(model, nfe) for model in MODELS for nfe in NFE]
    rows = at_once([lambda place=place: row(work, *place) for place in places])
    heading = ["model", "nfe", "`ns`, gradients", "`ns`, forward passes", "forward / gradients", *(f"`{name}`" for name in PUBLISHED)]
    note = f"rmse on {FRESH} fresh noises (millions of evaluations to train, a backward one as two, ground truth aside)."
    page.replace("docs/training.md", "many", [note, "", *page.table(heading, rows)])
