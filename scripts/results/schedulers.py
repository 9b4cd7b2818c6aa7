"""bindings/python/README.md: BespokeScheduler beside diffusers' schedulers, by rmse and by the time of a step."""

import re

import page
from bespoke import PYTHON, ROOT, at_once

PAGE = "bindings/python/README.md"
KINDS = ["flow", "vp"]
PIPELINES = {"xl": "SDXL", "sd3": "SD3"}
ITERATIONS = 10
SHAPES = [[4, 64, 64], [1, 8, 8]]
# A name, then columns of numbers.
ROW = re.compile(r"(.*?)((?: +[0-9.]+)+)$")


def rows(text):
    """{name: the last number of its line}, of a printed table."""
    found = map(ROW.fullmatch, text.splitlines()[1:])
    return {row[1].strip(): row[2].split()[-1] for row in found}


def columns(heading, tables):
    """A table of several with the same rows."""
    return page.table(heading, [[name, *(table[name] for table in tables)] for name in tables[0]])


def write(work):
    folder = ROOT / "bindings/python"

    def compare(kind):
        out = work.path("schedulers", f"compare-{kind}.txt")
        options = ["--kind", kind, "--iterations", ITERATIONS]
        return lambda: rows(work.printed(out, PYTHON, "examples/compare.py", *options, cwd=folder))

    def pipelines(kind):
        out, picture = work.path("schedulers", f"pipelines-{kind}.txt"), ROOT / f"docs/images/results/pipelines-{kind}.png"
        options = ["--kind", kind, "--out", picture]
        return lambda: rows(work.printed(out, PYTHON, "examples/pipelines.py", *options, cwd=folder))

    def step(shape):
        out = work.path("schedulers", f"step-{'x'.join(map(str, shape))}.txt")
        return rows(work.printed(out, PYTHON, "bench/step.py", "--shape", *shape, cwd=folder))

    def step_on_device():
        out = work.path("schedulers", "step-device.txt")
        text = work.printed(out, PYTHON, "bench/step.py", "--batch", 4, "--fake-device", cwd=folder)
        found = map(ROW.fullmatch, text.splitlines()[1:])
        return [[row[1].strip(), *row[2].split()[1:]] for row in found]

    note = f"`examples/compare.py --iterations {ITERATIONS}`, a UNet of digits with guidance 2, rmse as flow matching and as VP epsilon:"
    page.replace(PAGE, "compare", [note, "", *columns(["", *KINDS], at_once([compare(kind) for kind in KINDS]))])
    note = "`examples/pipelines.py`, pipelines of diffusers with small models of the digits, guidance 3, rmse at 8 evaluations:"
    table = columns(["", *(f"as {name}" for name in PIPELINES.values())], at_once([pipelines(kind) for kind in PIPELINES]))
    pictures = [f"![digits as {name}](../../docs/images/results/pipelines-{kind}.png)" for kind, name in PIPELINES.items()]
    page.replace(PAGE, "pipelines", [note, "", *table, "", *pictures])
    # These are measured with nothing beside them.
    heading = ["", *(f"`{[1, *shape]}`" for shape in SHAPES)]
    page.replace(PAGE, "step", columns(heading, [step(shape) for shape in SHAPES]))
    page.replace(PAGE, "step-device", page.table(["", "`[4, 4, 64, 64]`", "queued a step"], step_on_device()))
