"""docs/fashion.md: how far a solver carries that was learned on a model of clothes without guidance: to other guidance scales,
to the network changed by LoRA, and to its ONNX export in half precision and in 8 bits; beside it what a short training from
there brings, and one that begins anew. By name only: most of an hour of one core."""

import dataclasses
import json

import page
from bespoke import PYTHON, ROOT, at_once, card, learning
from three_to_ten import PUBLISHED

NFE = 6
COUNT = 200
MODEL = "fashion-fm-ot"
POOL = ["--pool", 100, "--validation", 60, "--batch", 50, "--validate-every", 1]
AGAIN, ANEW = ["--iterations", 3], ["--iterations", 12]
#: What engines of few digits can be solved to.
ROUGH = ["--rtol", 1e-4, "--atol", 1e-4]
IMAGES = {"negative": "LoRA on negatives of the images", "mirrored": "LoRA on mirrored images"}
ENGINES = {"float16": "ONNX Runtime, half precision", "int8": "ONNX Runtime, 8 bits"}


@dataclasses.dataclass
class Place:
    """Where the solver is taken to."""

    name: str
    heading: str
    card: object
    options: list = dataclasses.field(default_factory=list)


def places(work):
    own = ROOT / card(MODEL)
    folder = work.path("carried", "float16.json").parent
    for images in IMAGES:
        tune = [PYTHON, ROOT / "scripts/tune.py", own, "--data", ROOT / "demo/fashion", "--images", images, "--out", folder]
        work.unless(folder / f"{MODEL}-{images}.json", lambda tune=tune: work.run(*tune), IMAGES[images])
    exported = folder / f"{MODEL}-onnx.json"
    export = [PYTHON, ROOT / "scripts/export.py", "--runtime", "onnx", own, "--out", folder]
    work.unless(exported, lambda: work.run(*export), f"{MODEL} for ONNX Runtime")
    quantize = [PYTHON, ROOT / "scripts/make-quantized.py", exported, "--out", folder]
    work.unless(folder / "int8.json", lambda: work.run(*quantize), f"{MODEL} in half precision and in 8 bits")
    yield Place("own", "where it was learned", own)
    for scale in ("1.5", "2.5", "4"):
        yield Place(f"guidance-{scale}", f"guidance {scale}", own, ["--guidance-scale", scale])
    for images, heading in IMAGES.items():
        yield Place(images, heading, folder / f"{MODEL}-{images}.json")
    for engine, heading in ENGINES.items():
        yield Place(engine, heading, folder / f"{engine}.json", ROUGH)


def trained(work, place, name, *options):
    out = work.path("carried", f"{place.name}-{name}.json")
    pool = work.path("carried", f"{place.name}.safetensors")
    common = ["--family", "ns", "--nfe", NFE, *POOL, "--pool-file", pool, *place.options]
    return work.make(out, "train", "--quiet", "--model", place.card, *common, *options, "--out", out)


def row(work, place, learned):
    again = trained(work, place, "again", "--init", learned, *AGAIN)
    anew = trained(work, place, "anew", *ANEW)
    out = work.path("carried", f"on-{place.name}.json")
    solvers = [f"{learned}@{NFE}", again, anew, *(f"{name}@{NFE}" for name in PUBLISHED)]
    named = [word for solver in solvers for word in ("--solver", solver)]
    options = [*place.options, "--count", COUNT, "--seed", 2, "--json", out]
    work.make(out, "eval", "--quiet", "--model", place.card, *named, *options)
    carried, short, long, *published = (result["rmse"] for result in json.loads(out.read_text())["results"])
    best = min(published)
    cells = [f"{carried:.4f}", f"{best:.4f} (`{PUBLISHED[published.index(best)]}`)", f"{carried / best:.2f}"]
    for rmse, theta in ((short, again), (long, anew)):
        training = json.loads(theta.read_text())["training"]
        cells.append(f"{rmse:.4f} ({learning(training) / 1e3:.0f})")
    return [place.heading, *cells]


def write(work):
    # The ladder of the table before.
    learned = work.path("fashion", "error.json")
    if not learned.exists():
        raise SystemExit(f"no {learned}: `scripts/results fashion` makes it")
    rows = at_once([lambda place=place: row(work, place, learned) for place in places(work)])
    heading = ["taken to", "rmse", "best published one", "ratio", "after three iterations from it", "learned there anew"]
    note = f"rmse at {NFE} evaluations on {COUNT} fresh noises (thousands of evaluations to learn, ground truth aside)."
    page.replace("docs/fashion.md", "carried", [note, "", *page.table(heading, rows)])
