"""The table of the models of clothes, with and without guidance: the published solvers beside `ns`, learned by
gradients and by forward passes alone, printed. By name only: hours of
one core."""

import ladders
import page
from bespoke import ROOT, at_once, card

# The second is there where `make fashion-ddpm` has made it.
MODELS = [model for model in ("fashion-fm-ot", "fashion-ddpm") if (ROOT / card(model)).exists()]
GUIDANCE = ["1", "2.5"]
COUNT = 200
COUNTS = [3, 4, 5, 6, 8, 10, 14, 20]
PUBLISHED = ["euler", "midpoint", "ddim", "dpm++2m", "unipc", "deis", "ipndm"]
NFE = [5, 10]
POOL = ["--pool", 300, "--validation", 200]
WAYS = {
    "gradients": ["--optimizer", "gauss-newton", "--batch", 100, "--iterations", 20],
    "forward passes": ["--optimizer", "forward-gauss-newton", "--iterations", 40],
}


def place(work, model, scale, name):
    return work.path(model, f"guidance-{scale}", f"{name.replace(' ', '-')}.json")


def learned(work, model, scale):
    for way, options in WAYS.items():
        pool = work.path(model, f"guidance-{scale}", "pool.safetensors")
        several = ",".join(map(str, NFE))
        common = ["--guidance-scale", scale, "--family", "ns", "--nfe", several, *POOL, "--pool-file", pool]
        work.train(place(work, model, scale, way), model, *common, *options)


def compared(work, model, scale):
    """Lines of one model's table at one guidance scale."""
    learned(work, model, scale)
    solvers = [f"{place(work, model, scale, way)}@{nfe}" for way in WAYS for nfe in NFE]
    solvers += [f"{name}@{nfe}" for name in PUBLISHED for nfe in COUNTS if name != "midpoint" or nfe % 2 == 0]
    options = ["--guidance-scale", scale, "--count", COUNT, "--seed", 2]
    out = work.evaluate(place(work, model, scale, "evaluation"), model, [*solvers, "gt"], *options)
    results = out["results"]
    cells = {way: {nfe: results[i * len(NFE) + j] for j, nfe in enumerate(NFE)} for i, way in enumerate(WAYS)}
    for solver, result in zip(solvers[len(WAYS) * len(NFE) :], results[len(WAYS) * len(NFE) :]):
        name, nfe = solver.split("@")
        cells.setdefault(name, {})[int(nfe)] = result
    best = {nfe: min(row[nfe]["rmse"] for row in cells.values() if nfe in row) for nfe in COUNTS}

    def cell(row, nfe):
        if nfe not in row:
            return "–"
        text = f"{row[nfe]['rmse']:.4f} ({row[nfe]['psnr']:.1f})"
        return f"**{text}**" if row[nfe]["rmse"] == best[nfe] else text

    names = {way: f"`ns`, by {way}" for way in WAYS}
    rows = [[names.get(name, f"`{name}`"), *(cell(row, nfe) for nfe in COUNTS)] for name, row in cells.items()]
    truth = results[-1]
    costs = [f"{way}: {costs_of(place(work, model, scale, way))}" for way in WAYS]
    return [
        f"`{model}`, guidance {scale}; the ground truth takes {truth['nfe']:.0f} evaluations and has an rmse of "
        f"{truth['rmse']:.5f} of its own. To learn `ns` took, in evaluations at nfe {' and '.join(map(str, NFE))}, "
        f"{'; '.join(costs)}.",
        "",
        *page.table(["solver", *map(str, COUNTS)], rows),
    ]


def costs_of(ladder):
    spent = ladders.spent(ladder)
    return " and ".join(f"{spent[nfe] / 1e6:.2f} million" for nfe in NFE)


def write(work):
    places = [(model, scale) for model in MODELS for scale in GUIDANCE]
    tables = at_once([lambda p=p: compared(work, *p) for p in places])
    lines = [f"rmse (psnr in dB) on {COUNT} fresh noises, by nfe."]
    for lines_of in tables:
        lines += ["", *lines_of]
    print("\n".join(lines))
