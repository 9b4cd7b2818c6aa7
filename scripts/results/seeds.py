"""docs/fashion.md: one training by three seeds, each with noises and ground truth of its own, and how far apart the errors of
what they learn are on the same fresh noises. By name only: most of an hour of one core."""

import statistics

import page
from bespoke import at_once

MODEL = "fashion-fm-ot"
SEEDS = [0, 1, 2]
NFE = [4, 6]
COUNT = 200


def learned(work, seed):
    out = work.path("seeds", f"{seed}.json")
    options = ["--family", "ns", "--nfe", ",".join(map(str, NFE)), "--iterations", 9, "--validate-every", 1]
    return work.train(out, MODEL, *options, "--pool", 60, "--validation", 60, "--seed", seed)


def write(work):
    ladders = at_once([lambda seed=seed: learned(work, seed) for seed in SEEDS])
    solvers = [f"{ladder}@{nfe}" for nfe in NFE for ladder in ladders]
    # Of a seed that nothing was learned by.
    results = work.evaluate(work.path("seeds", "evaluation.json"), MODEL, solvers, "--count", COUNT, "--seed", 7)["results"]
    rows = []
    for i, nfe in enumerate(NFE):
        own = results[i * len(SEEDS) :][: len(SEEDS)]
        errors, ratios = ([result[of] for result in own] for of in ("rmse", "psnr"))
        spread = f"{100 * statistics.stdev(errors) / statistics.mean(errors):.0f} % ({statistics.stdev(ratios):.2f})"
        rows.append([str(nfe), *(f"{rmse:.4f} ({psnr:.2f})" for rmse, psnr in zip(errors, ratios)), spread])
    heading = ["nfe", *(f"seed {seed}" for seed in SEEDS), "standard deviation"]
    page.replace("docs/fashion.md", "seeds", [f"rmse (psnr in dB) on {COUNT} fresh noises.", "", *page.table(heading, rows)])
