"""docs/results.md and its pictures: rmse and Fréchet distance of every kind of solver against nfe."""

import json
import shutil
import subprocess

import ladders
from bespoke import MODELS, ROOT, at_once, card
from page import line, table

COUNT = 2000
WITHIN = 0.01  # of the ground truth's Fréchet distance
COUNTS = "4,6,8,10,12,16,20"
PUBLISHED = [f"{name}@{COUNTS}" for name in ("euler", "midpoint", "ddim", "dpm-solver-2", "dpm++2m", "unipc", "deis")]
PUBLISHED += ["rk4@4,8,12,16,20", "edm@5,7,9,11,13,17,21"]
PLOTS = ["rmse.svg", "frechet-data.svg", "t.svg", "s.svg", "path-gt.png", "samples-gt.png"]


def reference(work):
    """What the networks learnt from, drawn and dequantised as in their training."""
    folder = work.path("reference")
    if not (folder / "photos.npy").exists():
        command = ["cargo", "run", "--quiet", "--release", "--example", "train_models", "--", "--reference", folder]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def report(work, model):
    out = work.path(model, "report.html")
    data = work.path("reference", model.split("-")[0] + ".npy")
    several = ",".join(map(str, ladders.NFE))
    solvers = [f"{work.path(model, name)}.json@{several}" for name in ("rk2", "ns")] + PUBLISHED
    named = [word for solver in solvers for word in ("--solver", solver)]
    common = ["--quiet", "--model", card(model), "--count", COUNT, "--data", data]
    work.make(out, "report", *common, *named, "--out", out)
    return json.loads(out.with_suffix(".json").read_text())


def by_nfe(report, value, digits):
    """Rows are curves, columns nfe; the best of each column is bold."""
    found = {(row["curve"], round(row["nfe"])): value(row) for row in report["results"]}
    curves = list(dict.fromkeys(curve for curve, _ in found))
    columns = sorted({nfe for _, nfe in found if nfe % 2 == 0})
    best = {nfe: min(found[curve, nfe] for curve in curves if (curve, nfe) in found) for nfe in columns}

    def cell(curve, nfe):
        if (curve, nfe) not in found:
            return "–"
        text = f"{found[curve, nfe]:.{digits}f}"
        return f"**{text}**" if found[curve, nfe] == best[nfe] else text

    rows = [[curve, *(cell(curve, nfe) for nfe in columns)] for curve in curves]
    return table(["solver", *map(str, columns)], [row for row in rows if set(row[1:]) != {"–"}])


def reached(report):
    """Of each curve the nfe from which on its Fréchet distance to data stays near the ground truth's."""
    level = report["distances"]["ground_truth_to_data"]["frechet"]
    answers = {}
    for curve in dict.fromkeys(row["curve"] for row in report["results"]):
        rows = sorted((row["nfe"], row["to_data"]["frechet"]) for row in report["results"] if row["curve"] == curve)
        good = None
        for nfe, frechet in reversed(rows):
            if abs(frechet - level) > WITHIN * level:
                break
            good = round(nfe)
        answers[curve] = str(good) if good else f"more than {round(rows[-1][0])}"
    return answers


def write(work):
    ladders.train(work, ("rk2", "ns"))
    reference(work)
    reports = dict(zip(MODELS, at_once([lambda model=model: report(work, model) for model in MODELS])))
    pictures = ROOT / "docs/images/results"
    pictures.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        for plot in PLOTS:
            shutil.copy(work.path(model, "report-plots", plot), pictures / f"{model}-{plot}")

    first = reports[MODELS[0]]
    answers = {model: reached(report) for model, report in reports.items()}
    curves = list(dict.fromkeys(curve for found in answers.values() for curve in found))
    truths = [report["distances"]["ground_truth_to_data"]["frechet"] for report in reports.values()]
    lines = [
        "# Results",
        "",
        "Made by `make results`, as all tables of solvers in these docs.",
        "",
        "<!-- results: time -->",
        "<!-- end -->",
        "",
        f"{first['count']} samples, seed {first['seed']}; errors are against the ground truth "
        f"(adaptive RK45, rtol {first['tolerance']['rtol']:g}) of the same noises. The Fréchet distance is to the data, "
        "in the features of the digits classifier, for the photographs' patches in their pixels; it is not the FID of "
        "the literature, whose network has seen other pictures. `edm` stands in the curves: its counts are odd. "
        "[training.md](training.md) says how `rk2` and `ns` were trained.",
        "",
        "## Evaluations to the ground truth's Fréchet distance",
        "",
        f"From how many evaluations on, among those that were tried, the distance to the data stays within "
        f"{WITHIN:.0%} of the ground truth's:",
        "",
        *table(["solver", *reports], [[curve, *(found.get(curve, "–") for found in answers.values())] for curve in curves]),
        line(["ground truth's distance", *(f"{truth:.4f}" for truth in truths)]),
        line(["ground truth's evaluations", *(f"{report['ground_truth']['nfe']:.0f}" for report in reports.values())]),
    ]
    for model, report_of in reports.items():
        lines += [
            "",
            f"## {model}",
            "",
            f"![rmse against nfe](images/results/{model}-rmse.svg)",
            f"![Fréchet distance against nfe](images/results/{model}-frechet-data.svg)",
            "",
            "rmse against the ground truth, by nfe:",
            "",
            *by_nfe(report_of, lambda row: row["rmse"], 4),
            "",
            "Fréchet distance to the data, by nfe:",
            "",
            *by_nfe(report_of, lambda row: row["to_data"]["frechet"], 3),
        ]
    (ROOT / "docs/results.md").write_text("\n".join(lines) + "\n")
