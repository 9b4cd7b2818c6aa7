"""docs/training.md: solvers trained over files of conditions, on others; trained at one size, at another; trained for a
range of guidance scales, at each. ONNX models, forward passes alone."""

import page
from bespoke import ROOT, at_once

TEXT, WIDE = "digits-text-onnx", "photos-wide-onnx"
NFE = [8, 10]
ITERATIONS = {"rk2": 20, "ns": 36}
TEXTS = {"digits-text": (9, 13, 17, 22), "digits-text-others": (11, 15, 19, 25)}
WIDTHS, OTHER_WIDTHS = (8, 16, 24), (12, 20, 32)
#: Range of guidance scales, and those looked at.
RANGE, SCALES = "1..4", (1, 2, 3, 4)
TRAINING = ["--validation", 512, "--validate-every", 4, "--patience", 3]
#: Noises of a pool, where they are of few conditions, and where they are of many.
FEW = ["--pool", 500]
#: What the others are held against.
BASE = "midpoint@10"
#: Noises: means of errors are ruled by few samples, and a ratio of two means says more the more there are.
MANY, SOME = 8192, 1024


def files(*names):
    """Options that name files of conditions."""
    return [word for name in names for word in ("--conditions", ROOT / "models" / "conditions" / f"{name}.safetensors")]


def texts(name):
    return files(*(f"{name}-{length}" for length in TEXTS[name]))


def pieces(width):
    return files(f"photos-wide-{width}" if width in WIDTHS else f"photos-wide-others-{width}")


def errors(work, out, count, model, solvers, *options):
    """The rmse of each solver, on the same fresh noises."""
    found = work.evaluate(out, model, solvers, *options, "--count", min(work.count, count), "--seed", 2)["results"]
    return [result["rmse"] for result in found]


def over_texts(work):
    """Of solvers trained over 256 texts: rmse on these, and on 256 others."""
    several = ",".join(map(str, NFE))

    def trained(family):
        options = ["--family", family, "--nfe", several, *TRAINING, "--iterations", ITERATIONS[family]]
        # Some six noises for each text: a table of 74 numbers learns fewer by heart.
        options += ["--pool", 1500, "--pool-file", work.path("texts", "pool.safetensors")]
        if family == "ns":
            options += ["--init", work.path("texts", "rk2.json")]
        return work.train(work.path("texts", f"{family}.json"), TEXT, *texts("digits-text"), *options)

    ladders = {family: trained(family) for family in ITERATIONS}
    names = [(family, nfe) for family in ladders for nfe in NFE]
    solvers = [*(f"{ladders[family]}@{nfe}" for family, nfe in names), BASE]
    names.append((BASE, 10))

    def on(name):
        return lambda: errors(work, work.path("texts", f"on-{name}.json"), MANY, TEXT, solvers, *texts(name))

    own, others = at_once([on(name) for name in TEXTS])
    rows = [
        [f"`{family}`", str(nfe), f"{a:.5f}", f"{b:.5f}", f"{b / a:.3f}"] for (family, nfe), a, b in zip(names, own, others)
    ]
    return page.table(["family", "nfe", "the 256 texts of training", "256 others", "ratio"], rows)


def over_widths(work):
    """Of `rk2` solvers trained at one width, or over three: rmse at each, and at others."""
    runs = {**{str(width): (width,) for width in WIDTHS}, "all three": WIDTHS}

    def train(name, widths):
        given = [word for width in widths for word in pieces(width)]
        out = work.path("widths", f"{name.replace(' ', '-')}.json")
        return work.train(out, WIDE, *given, "--family", "rk2", "--nfe", 10, *TRAINING, *FEW, "--iterations", ITERATIONS["rk2"])

    solvers = at_once([lambda name=name, widths=widths: train(name, widths) for name, widths in runs.items()])

    def at(width):
        return lambda: errors(work, work.path("widths", f"at-{width}.json"), SOME, WIDE, [*solvers, BASE], *pieces(width))

    seen = sorted((*WIDTHS, *OTHER_WIDTHS))
    return across("trained at width", [*runs, f"`{BASE}`"], seen, at_once([at(width) for width in seen]))


def over_scales(work):
    """Of `rk2` solvers trained for a range of guidance scales, or for one: rmse at each scale."""
    runs = [RANGE, *map(str, SCALES)]

    def train(scale):
        options = ["--family", "rk2", "--nfe", 10, *TRAINING, *FEW, "--iterations", ITERATIONS["rk2"], "--guidance-scale", scale]
        return work.train(work.path("scales", f"{scale}.json"), TEXT, *texts("digits-text"), *options)

    solvers = at_once([lambda scale=scale: train(scale) for scale in runs])

    def at(scale):
        options = [*texts("digits-text"), "--guidance-scale", scale]
        return lambda: errors(work, work.path("scales", f"at-{scale}.json"), SOME, TEXT, [*solvers, BASE], *options)

    return across("trained for scale", [*runs, f"`{BASE}`"], SCALES, at_once([at(scale) for scale in SCALES]))


def across(heading, names, places, columns):
    """A row for each name, a column for each place."""
    rows = [[name, *(f"{column[i]:.5f}" for column in columns)] for i, name in enumerate(names)]
    return page.table([heading, *(f"at {place}" for place in places)], rows)


def write(work):
    for part, make in (("texts", over_texts), ("widths", over_widths), ("scales", over_scales)):
        page.replace("docs/training.md", part, make(work))
