"""The tables of the models of clothes at three to ten evaluations: `ns` learned on the error, on features, and on both,
and `rk2`, beside the published solvers. By name only, each place a part: some forty minutes of one core."""

import json
import shutil

import ladders
import page
from bespoke import PYTHON, ROOT, allows, at_once, card, equivalents

COUNT = 600
NFE = [3, 4, 5, 6, 8, 10]
# In features the race is at few.
FEW = [3, 4, 5, 6]
PICTURED = [3, 4, 5, 6, 8]
PUBLISHED = ["ddim", "midpoint", "dpm++2m", "unipc", "ipndm"]
POOL = ["--pool", 300, "--validation", 200, "--batch", 100, "--validate-every", 2]
# The network that losses see, and the one that judges: another one, of another seed.
SEES, JUDGE = "models/fashion-layers.json", "models/fashion-judge.json"
HEADINGS = {
    "error": "`ns`, `log-mse`",
    "features": "`ns`, then `features`",
    "both": "`ns`, then `log-mse:1,features:1`",
    "rk2": "`rk2`, `log-mse`",
    "start": "the published one that `ns` starts at, on its grid",
    "ld3": "LD3",
    "s4s": "S4S",
    "gs": "GS",
}
# What others learn (scripts/few.py), in as many evaluations as `ns` on features took in all, ground truth aside.
PEERS = ["ld3", "s4s", "gs"]
PEERS_NFE = [3, 5]
PEERS_SAMPLES = 300
MEASURES = {
    "rmse (psnr in dB)": lambda r: (r["rmse"], f"{r['rmse']:.4f} ({r['psnr']:.1f})"),
    "Fréchet distance (precision, recall) from the ground truth's samples": lambda r: distance(r["to_ground_truth"]),
    "Fréchet distance (precision, recall) from the test images": lambda r: distance(r["to_data"]),
}


def several(counts):
    return ",".join(map(str, counts))


def learned(work, folder, model, scale):
    """{way: ladder file}."""
    common = [*POOL, "--features", SEES, "--guidance-scale", scale, "--pool-file", work.path(folder, "pool.safetensors")]
    ways = {way: work.path(folder, f"{way}.json") for way in ("error", "features", "both", "rk2")}
    ns = ["--family", "ns"]
    options = {
        "error": [*ns, "--nfe", several(NFE), "--iterations", 20],
        "features": [*ns, "--init", ways["error"], "--nfe", several(FEW), "--loss", "features", "--iterations", 12],
        "both": [*ns, "--init", ways["error"], "--nfe", several(FEW), "--loss", "log-mse:1,features:1", "--iterations", 12],
        "rk2": ["--family", "rk2", "--nfe", several(n for n in NFE if n % 2 == 0), "--iterations", 12],
    }

    def train(way):
        return lambda: work.train(ways[way], model, *options[way], *common)

    # The others start from the first, and all share its ground truth.
    train("error")()
    at_once([train(way) for way in ways if way != "error"])
    return ways


def peers(work, folder, model, ways):
    """{(peer, nfe): theta file}."""
    noise, truth = work.solved(work.path(folder, "peers"), card(model), (PEERS_SAMPLES, 1, 28, 28))
    spent = dict.fromkeys(NFE, 0)
    for way in ("error", "features"):
        for rung in json.loads(ways[way].read_text())["rungs"]:
            training = rung["training"]
            spent[rung["steps"]] += equivalents(training["evaluations"]) - training["ground_truth_evaluations"]

    def learn(peer, nfe):
        out = work.path(folder, "peers", f"{peer}-{nfe}.json")
        options = ["--layers", SEES.replace(".json", ".pt"), "--noise", noise, "--truth", truth, "--nfe", nfe, "--out", out]
        options += ["--budget", spent[nfe]]
        work.unless(out, lambda: work.run(PYTHON, ROOT / "scripts/few.py", card(model), peer, *options), f"{peer}@{nfe}")
        return out

    places = [(peer, nfe) for nfe in PEERS_NFE for peer in PEERS]
    return dict(zip(places, at_once([lambda p=place: learn(*p) for place in places])))


def data(work):
    """The 10,000 test images, as bytes."""
    out = work.path("fashion-test.npy")
    if not out.exists():
        import numpy

        raw = (ROOT / "demo/fashion/t10k-images-idx3-ubyte").read_bytes()
        numpy.save(out, numpy.frombuffer(raw, numpy.uint8, offset=16).reshape(-1, 1, 28, 28))
    return out


def distance(found):
    return found["frechet"], f"{found['frechet']:.3f} ({found['precision']:.2f}, {found['recall']:.2f})"


def table(measure, cells):
    """Lines of one measure, the least of each count in bold."""
    least = {nfe: min(MEASURES[measure](row[nfe])[0] for row in cells.values() if nfe in row) for nfe in NFE}

    def text(row, nfe):
        if nfe not in row:
            return "–"
        value, shown = MEASURES[measure](row[nfe])
        return f"**{shown}**" if value == least[nfe] else shown

    rows = [[HEADINGS.get(name, f"`{name}`"), *(text(row, nfe) for nfe in NFE)] for name, row in cells.items()]
    return [f"{measure}:", "", *page.table(["solver", *map(str, NFE)], rows)]


def picture(work, folder, model, ladder):
    """docs/images/fashion.png: the ground truth's samples, and those of few evaluations beside UniPC's."""
    asked = [solver for nfe in PICTURED for solver in (f"{ladder}@{nfe}", f"unipc@{nfe}")]
    out = work.path(folder, "samples.png")
    work.evaluate(work.path(folder, "pictured.json"), model, asked, "--count", 20, "--seed", 2, "--png", out)
    shutil.copy(out, ROOT / "docs/images/fashion.png")


def write(work, part, model, scale, with_peers=False):
    ways = learned(work, part, model, scale)
    asked = [(way, nfe, f"{ladder}@{nfe}") for way, ladder in ways.items() for nfe in ladders.spent(ladder)]
    if with_peers:
        asked += [(peer, nfe, str(theta)) for (peer, nfe), theta in peers(work, part, model, ways).items()]
    asked += [("start", nfe, solver) for nfe, solver in ladders.starts(ways["error"]).items()]
    published = {solver["name"]: solver for solver in work.published()}
    asked += [(name, nfe, f"{name}@{nfe}") for name in PUBLISHED for nfe in NFE if allows(published[name], nfe)]
    options = ["--count", COUNT, "--seed", 2, "--guidance-scale", scale]
    options += ["--frechet", "--features", JUDGE, "--data", data(work)]
    out = work.evaluate(work.path(part, "evaluation.json"), model, [solver for _, _, solver in asked], *options)
    cells = {}
    for (name, nfe, _), result in zip(asked, out["results"]):
        cells.setdefault(name, {})[nfe] = result
    truth = distance(out["distances"]["ground_truth_to_data"])[1]
    spent = ladders.spent(ways["error"])
    costs = ", ".join(f"{spent[nfe] / 1e6:.2f}" for nfe in NFE)
    truth_takes = f"{out['ground_truth']['evaluations']:.0f} evaluations, and is {truth} from the test images"
    lines = [
        f"`{card(model)}`, guidance {scale}, {COUNT} fresh noises, by nfe. The ground truth takes {truth_takes}. "
        f"To learn `ns` on the error took {costs} million evaluations, a backward one as two.",
    ]
    for measure in MEASURES:
        lines += ["", *table(measure, cells)]
    page.replace("docs/fashion.md", part, lines)
    if with_peers:
        picture(work, part, model, ways["error"])


PARTS = {
    "fashion": lambda work: write(work, "fashion", "fashion-fm-ot", "1", with_peers=True),
    "fashion-guided": lambda work: write(work, "fashion-guided", "fashion-fm-ot", "2.5"),
    "fashion-ddpm": lambda work: write(work, "fashion-ddpm", "fashion-ddpm", "1"),
}
