"""Writes the page of results from the reports of scripts/results.

    python3 scripts/results-page.py FOLDER PAGE.md SECONDS MODEL...
"""

import json
import sys
from pathlib import Path

WITHIN = 1.01  # of the ground truth's Fréchet distance


def cells(values):
    return "| " + " | ".join(values) + " |"


def table(report, value, digits):
    """Rows are curves, columns nfe; the best of each column is bold."""
    rows = report["results"]
    columns = sorted({round(row["nfe"]) for row in rows if round(row["nfe"]) % 2 == 0})
    curves = list(dict.fromkeys(row["curve"] for row in rows))
    found = {(row["curve"], round(row["nfe"])): value(row) for row in rows}
    best = {n: min(found[c, n] for c in curves if (c, n) in found) for n in columns}

    def cell(curve, nfe):
        if (curve, nfe) not in found:
            return "–"
        text = f"{found[curve, nfe]:.{digits}f}"
        return f"**{text}**" if found[curve, nfe] == best[nfe] else text

    lines = [cells(["solver", *map(str, columns)]), cells(["---"] * (len(columns) + 1))]
    lines += [cells([curve, *(cell(curve, nfe) for nfe in columns)]) for curve in curves if any((curve, n) in found for n in columns)]
    return "\n".join(lines)


def reached(report):
    """Of each curve the nfe from which on its Fréchet distance to data stays within 1 % of the ground truth's."""
    level = report["distances"]["ground_truth_to_data"]["frechet"]
    answers = {}
    for curve in dict.fromkeys(row["curve"] for row in report["results"]):
        rows = sorted((row["nfe"], row["to_data"]["frechet"]) for row in report["results"] if row["curve"] == curve)
        good = None
        for nfe, frechet in reversed(rows):
            if abs(frechet - level) > (WITHIN - 1) * level:
                break
            good = round(nfe)
        answers[curve] = str(good) if good else f"more than {round(rows[-1][0])}"
    return answers


def main():
    folder, page, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    reports = {name: json.loads((folder / name / "report.json").read_text()) for name in sys.argv[4:]}
    first = next(iter(reports.values()))
    text = [
        "# Results",
        "",
        f"Made by `make results` ({max(1, round(seconds / 60))} minutes where this page was made, what was already "
        f"trained not trained again). {first['count']} samples, seed {first['seed']}; errors are against the ground "
        f"truth (adaptive RK45, rtol {first['tolerance']['rtol']:g}) of the same noises. The Fréchet distance is to the "
        "data, in the features of the digits classifier, for the photographs' patches in their pixels; it is not the "
        "FID of the literature, whose network has seen other pictures. `edm` stands in the curves: its counts are odd.",
        "",
        "## Evaluations to the ground truth's Fréchet distance",
        "",
        "From how many evaluations on, among those that were tried, the distance to the data stays within 1 % of the "
        "ground truth's:",
        "",
    ]
    answers = {name: reached(report) for name, report in reports.items()}
    curves = list(dict.fromkeys(curve for found in answers.values() for curve in found))
    text += [cells(["solver", *reports]), cells(["---"] * (len(reports) + 1))]
    text += [cells([curve, *(found.get(curve, "–") for found in answers.values())]) for curve in curves]
    level = {name: report["distances"]["ground_truth_to_data"]["frechet"] for name, report in reports.items()}
    text.append(cells(["ground truth's distance", *(f"{value:.4f}" for value in level.values())]))
    truth = {name: report["ground_truth"]["nfe"] for name, report in reports.items()}
    text.append(cells(["ground truth's evaluations", *(f"{value:.0f}" for value in truth.values())]))
    for name, report in reports.items():
        text += [
            "",
            f"## {name}",
            "",
            f"![rmse against nfe](images/results/{name}-rmse.svg)",
            f"![Fréchet distance against nfe](images/results/{name}-frechet-data.svg)",
            "",
            "rmse against the ground truth, by nfe:",
            "",
            table(report, lambda row: row["rmse"], 4),
            "",
            "Fréchet distance to the data, by nfe:",
            "",
            table(report, lambda row: row["to_data"]["frechet"], 3),
        ]
    page.write_text("\n".join(text) + "\n")


main()
