"""docs/training.md: a solver learned on the engine that serves beside one learned on the network in float32, both judged on
that engine: half precision and 8 bits in ONNX Runtime, bfloat16 in libtorch."""

import json

import page
from bespoke import PYTHON, ROOT, at_once

#: For ONNX Runtime and for libtorch.
MODELS = ["digits-fm-ot-onnx", "digits-fm-ot"]
NFE = [8, 10]
#: Tolerances that 8 bits can be solved to.
TOLERANCE = ["--rtol", 1e-4, "--atol", 1e-4]
TRAINING = ["--family", "ns", "--pool", 400, "--validation", 300, "--iterations", 30, "--validate-every", 3]
#: Of the engines that have gradients too.
FORWARD = ["--optimizer", "forward-gauss-newton"]
FRESH = 1000
#: The same noises in another order, each with the class that it had, the digits' ten being taken in turn.
TURNED = """
import numpy
noise = numpy.random.default_rng(7).standard_normal((300, 1, 8, 8), 'float32')
numpy.save({0!r}, noise)
numpy.save({1!r}, numpy.roll(noise, 70, 0))
"""
APART = """
import numpy
a, b = numpy.load({0!r}), numpy.roll(numpy.load({1!r}), -70, 0)
print(numpy.sqrt(((a - b) ** 2).mean((1, 2, 3))).mean())
"""


def batched_otherwise(work, engine, card, theta):
    """The rmse between the samples of a solver and the same ones in other batches."""
    noises, ends = ([work.path("engines", f"{what}-{i}.npy") for i in range(2)] for what in ("noise", engine))
    work.unless(noises[1], lambda: work.run(PYTHON, "-c", TURNED.format(*map(str, noises))), "noises")
    for noise, end in zip(noises, ends):
        work.make(end, "sample", "--model", card, "--noise", noise, "--solver", theta, "--out", end)
    return float(work.run(PYTHON, "-c", APART.format(*map(str, ends)))[0])


def write(work):
    folder = work.path("engines", "int8.json").parent
    for model, name in zip(MODELS, ("int8", "bfloat16")):
        make = [PYTHON, ROOT / "scripts/make-quantized.py", ROOT / f"models/{model}.json", "--out", folder]
        work.unless(folder / f"{name}.json", lambda make=make: work.run(*make), f"{model} as engines have it")
    engines = ["bfloat16", "float16", "int8"]
    cards = {"float32": ROOT / f"models/{MODELS[0]}.json", **{name: folder / f"{name}.json" for name in engines}}

    def trained(engine, nfe):
        out = folder / f"{engine}-{nfe}.json"
        options = [*TRAINING, *TOLERANCE, "--nfe", nfe, "--init", f"midpoint@{nfe}"]
        options += FORWARD if engine == "bfloat16" else []
        return work.make(out, "train", "--quiet", "--model", cards[engine], *options, "--out", out)

    places = [(engine, nfe) for engine in cards for nfe in NFE]
    thetas = dict(zip(places, at_once([lambda place=place: trained(*place) for place in places])))
    rows = []
    for engine in engines:
        for nfe in NFE:
            solvers = [thetas["float32", nfe], thetas[engine, nfe], f"midpoint@{nfe}", f"unipc@{nfe}"]
            named = [word for solver in solvers for word in ("--solver", solver)]
            out = folder / f"on-{engine}-{nfe}.json"
            options = [*named, *TOLERANCE, "--count", FRESH, "--seed", 2, "--json", out]
            work.make(out, "eval", "--quiet", "--model", cards[engine], *options)
            errors = [result["rmse"] for result in json.loads(out.read_text())["results"]]
            errors.append(batched_otherwise(work, f"{engine}-{nfe}", cards[engine], thetas["float32", nfe]))
            rows.append([engine, str(nfe), *(f"{rmse:.5f}" for rmse in errors)])
    heading = ["serves", "nfe", "learned in float32", "learned on it", "`midpoint`", "`unipc`", "itself, batched otherwise"]
    page.replace("docs/training.md", "engines", page.table(heading, rows))
