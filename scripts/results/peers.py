"""docs/training.md: what other searches without gradients reach on the digits at ten evaluations, beside `ns`."""

import json

import page
from bespoke import PYTHON, ROOT

MODEL = "digits-fm-ot-onnx"
SEARCHED, FRESH = 2000, 1000
#: Where the searches are read, in thousands of evaluations.
MARKS = (100, 200, 300, 400, 550, 700)


def write(work):
    card = ROOT / "models" / f"{MODEL}.json"
    noise, truth = work.solved(work.path("peers"), card, (SEARCHED + FRESH, 1, 8, 8))
    found = work.path("peers", "found.json")
    search = [ROOT / "scripts/peers.py", card, "--noise", noise, "--truth", truth, "--validation", FRESH, "--out", found]
    work.unless(found, lambda: work.run(PYTHON, *search), "searches without gradients")
    found = json.loads(found.read_text())
    row = ["CMA-ES on the table of `ns`", f"{found['midpoint']:.4f}"]
    for mark in MARKS:
        row.append(f"{min(rmse for spent, rmse in found['cma'] if spent <= 1000 * mark):.4f}")
    lines = page.table(["", "0", *map(str, MARKS)], [row])
    grids = [f"{rule} {found[rule]['rmse']:.4f} ({found[rule]['evaluations'] / 1000:.0f} thousand evaluations)"
             for rule in ("euler on its grid", "midpoint on its grid")]  # fmt: skip
    page.replace("docs/training.md", "peers", [*lines, "", f"Best grids: {'; '.join(grids)}."])
