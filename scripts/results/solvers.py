"""docs/solvers.md: every solver on the digits, without guidance and with it, Bespoke solvers among them, and the best
published solver of each column. A solver that cannot have a column's nfe stands there with the greatest below it,
which is then in brackets."""

import ladders
import page
from bespoke import DIGITS, at_once, greatest_allowed

SCALES = [1, 2.5]
COLUMNS = [6, 8, 10, 16, 20]
COUNT = 200
SEVERAL = ",".join(map(str, COLUMNS))
GUIDED = ["--family", "rk2", "--nfe", SEVERAL, "--guidance-scale", SCALES[1]]
GUIDED += ["--batch", 200, "--iterations", 15, "--pool", 500, "--validation", 500, "--validate-every", 5]


def guided(work, model):
    return work.train(work.path(model, "rk2-guided.json"), model, *GUIDED)


def evaluated(work, model, scale, published):
    """{(solver, nfe): rmse}"""
    learned = {"Bespoke rk2": work.path(model, "rk2.json"), "Bespoke ns": work.path(model, "ns.json")}
    if scale != 1:
        learned = {"Bespoke rk2": guided(work, model)}
    names = {}
    for solver in published:
        for nfe in {greatest_allowed(solver, column) for column in COLUMNS} - {None}:
            names[f"{solver['name']}@{nfe}"] = solver["name"], nfe
    for row, ladder in learned.items():
        names |= {f"{ladder}@{nfe}": (row, nfe) for nfe in COLUMNS}
    out = work.path(model, f"solvers-{scale}.json")
    results = work.evaluate(out, model, list(names), "--guidance-scale", scale, "--count", COUNT)["results"]
    return dict(zip(names.values(), (result["rmse"] for result in results)))


def write(work):
    ladders.train(work, ("rk2", "ns"), DIGITS)
    published = work.published()
    places = [(model, scale) for model in DIGITS for scale in SCALES]
    jobs = [lambda place=place: evaluated(work, *place, published) for place in places]
    found = dict(zip(places, at_once(jobs)))
    at = [(scale, column) for scale in SCALES for column in COLUMNS]
    command = " ".join(map(str, ["bespoke train --model models/MODEL.json", *GUIDED, "--out LADDER"]))
    lines = ["With guidance, `Bespoke rk2` is of", "", f"    {command}", ""]
    for model in DIGITS:
        rows = [solver["name"] for solver in published] + ["Bespoke rk2", "Bespoke ns"]

        def fitting(row, scale, column):
            """(nfe, rmse) of the greatest nfe that is at most the column's."""
            of_row = [(nfe, rmse) for (name, nfe), rmse in found[model, scale].items() if name == row and nfe <= column]
            return max(of_row, default=None)

        def best(scale, column):
            present = [solver["name"] for solver in published if fitting(solver["name"], scale, column)]
            return min(present, key=lambda row: fitting(row, scale, column)[1])

        def cell(row, scale, column):
            if not fitting(row, scale, column):
                return "–"
            nfe, rmse = fitting(row, scale, column)
            text = f"{rmse:.4f}" if rmse < 100 else f"{rmse:.1e}"
            text = f"**{text}**" if row == best(scale, column) else text
            return text if nfe == column else f"{text} ({nfe})"

        heading = ["solver"] + [f"{column}" if scale == 1 else f"{column}, scale {scale}" for scale, column in at]
        cells = [[row, *(cell(row, *place) for place in at)] for row in rows]
        cells.append(["best published", *(best(*place) for place in at)])
        lines += [f"`{model}`: rmse against the ground truth of {COUNT} noises", "", *page.table(heading, cells), ""]
    page.replace("docs/solvers.md", "solvers", lines[:-1])
