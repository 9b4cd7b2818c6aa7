"""docs/training.md: a solver learned on the engine that serves beside one learned on the network in float32, both judged on
that engine: half precision and 8 bits in ONNX Runtime."""

import json

import page
from bespoke import PYTHON, ROOT, at_once

MODEL = "digits-fm-ot-onnx"
NFE = [8, 10]
#: Tolerances that 8 bits can be solved to.
TOLERANCE = ["--rtol", 1e-4, "--atol", 1e-4]
TRAINING = ["--family", "ns", "--pool", 400, "--validation", 300, "--iterations", 30, "--validate-every", 3]
FRESH = 1000


def write(work):
    folder = work.path("engines", "int8.json").parent
    make = [PYTHON, ROOT / "scripts/make-quantized.py", ROOT / f"models/{MODEL}.json", "--out", folder]
    work.unless(folder / "int8.json", lambda: work.run(*make), f"{MODEL} in half precision and in 8 bits")
    cards = {"float32": ROOT / f"models/{MODEL}.json", **{name: folder / f"{name}.json" for name in ("float16", "int8")}}

    def trained(engine, nfe):
        out = folder / f"{engine}-{nfe}.json"
        options = [*TRAINING, *TOLERANCE, "--nfe", nfe, "--init", f"midpoint@{nfe}"]
        return work.make(out, "train", "--quiet", "--model", cards[engine], *options, "--out", out)

    places = [(engine, nfe) for engine in cards for nfe in NFE]
    thetas = dict(zip(places, at_once([lambda place=place: trained(*place) for place in places])))
    rows = []
    for engine in ("float16", "int8"):
        for nfe in NFE:
            solvers = [thetas["float32", nfe], thetas[engine, nfe], f"midpoint@{nfe}", f"unipc@{nfe}"]
            named = [word for solver in solvers for word in ("--solver", solver)]
            out = folder / f"on-{engine}-{nfe}.json"
            options = [*named, *TOLERANCE, "--count", FRESH, "--seed", 2, "--json", out]
            work.make(out, "eval", "--quiet", "--model", cards[engine], *options)
            errors = [result["rmse"] for result in json.loads(out.read_text())["results"]]
            rows.append([engine, str(nfe), *(f"{rmse:.5f}" for rmse in errors)])
    heading = ["serves", "nfe", "learned in float32", "learned on it", "`midpoint`", "`unipc`"]
    page.replace("docs/training.md", "engines", page.table(heading, rows))
