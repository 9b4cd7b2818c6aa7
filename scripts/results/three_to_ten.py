"""The tables of the models of clothes and emoji at three to ten evaluations: `ns` learned on the error, on features, and
on both, and `rk2`, beside the published solvers and what others learn. By name only, each place a part: an hour of one core
or more."""

import dataclasses
import json
import shutil

import ladders
import page
from bespoke import PYTHON, ROOT, allows, at_once, card, learning

# In features the race is at few.
FEW = 6
PICTURED = 8
WAYS = ("error", "features", "both", "rk2")
PUBLISHED = ["ddim", "midpoint", "dpm++2m", "unipc", "ipndm"]
# Counts that are set beside the best published solver of twice as many, and of how many noises.
TWICE, TWICE_COUNT = (8, 10), 60


@dataclasses.dataclass
class Subject:
    """A model at a guidance scale, and where it is shown."""

    part: str
    page: str
    model: str
    scale: str = "1"
    # Files of its networks: NAME-layers, which losses see, and NAME-judge, another one of another seed.
    name: str = "fashion"
    shape: tuple[int, ...] = (1, 28, 28)
    # Files of conditions to learn by and to be judged by, where it takes some.
    conditions: tuple[str, str] | None = None
    nfe: tuple[int, ...] = (3, 4, 5, 6, 8, 10)
    # Ground truth to learn by, to choose by, and of an iteration; fresh noises to be judged by.
    pool: tuple[int, int, int] = (300, 200, 100)
    count: int = 600
    optimizer: str = "gauss-newton"
    iterations: int = 20
    ways: tuple[str, ...] = WAYS
    # Counts at which `ns` on the error begins somewhere else than by default.
    starts: dict[int, str] = dataclasses.field(default_factory=dict)
    with_peers: bool = False

    def network(self, role):
        return f"models/{self.name}-{role}.json"

    def given(self, role):
        """Options of what is asked for: the guidance, and the conditions, of training (0) or of judgement (1)."""
        named = ["--conditions", f"models/conditions/{self.conditions[role]}.safetensors"] if self.conditions else []
        return ["--guidance-scale", self.scale, *named]


SUBJECTS = [
    Subject("fashion", "docs/fashion.md", "fashion-fm-ot", with_peers=True),
    # Two passes an evaluation.
    Subject(
        "fashion-guided",
        "docs/fashion.md",
        "fashion-fm-ot",
        "2.5",
        pool=(100, 60, 30),
        count=150,
        optimizer="forward-gauss-newton",
        iterations=9,
        ways=("error", "features"),
        with_peers=True,
    ),
    Subject("fashion-ddpm", "docs/fashion.md", "fashion-ddpm", with_peers=True),
    Subject(
        "emoji",
        "docs/emoji.md",
        "emoji",
        name="emoji",
        shape=(3, 32, 32),
        conditions=("emoji-names", "emoji-names-others"),
        with_peers=True,
        pool=(100, 60, 40),
        count=144,
        ways=("error", "features", "rk2"),
        starts={10: "ab2@10:power=1.3"},
    ),
]
HEADINGS = {
    "error": "`ns`, `log-mse`",
    "default": "`ns`, `log-mse`, from the default start",
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


def shared(work, subject):
    """Options of all trainings of a subject: the ground truth, what samples are given, and the layers that are told."""
    pool, validation, _ = subject.pool
    options = ["--pool", pool, "--validation", validation, "--pool-file", work.path(subject.part, "pool.safetensors")]
    return [*options, "--features", subject.network("layers"), *subject.given(0)]


def learned(work, subject):
    """{way: ladder file}, and of `ns` on the error {nfe: theta file} where it began somewhere else."""
    ways = {way: work.path(subject.part, f"{way}.json") for way in subject.ways}
    counts, few = several(subject.nfe), several(nfe for nfe in subject.nfe if nfe <= FEW)
    even = several(nfe for nfe in subject.nfe if nfe % 2 == 0)
    options = {
        "error": ["--family", "ns", "--nfe", counts, "--iterations", subject.iterations],
        "features": ["--init", ways["error"], "--nfe", few, "--loss", "features", "--iterations", 12],
        "both": ["--init", ways["error"], "--nfe", few, "--loss", "log-mse:1,features:1", "--iterations", 12],
        "rk2": ["--family", "rk2", "--nfe", even, "--iterations", 12],
    }
    common = ["--optimizer", subject.optimizer, "--batch", subject.pool[2], "--validate-every", 2, *shared(work, subject)]

    def train(way):
        return lambda: work.train(ways[way], subject.model, *options[way], *common)

    def begin(nfe, start):
        out = work.path(subject.part, f"error-{nfe}.json")
        error = ["--family", "ns", "--nfe", nfe, "--init", start, "--iterations", subject.iterations]
        return lambda: work.train(out, subject.model, *error, *common)

    # The others start from the first, and all share its ground truth.
    train("error")()
    elsewhere = [begin(nfe, start) for nfe, start in subject.starts.items()]
    found = at_once([*elsewhere, *(train(way) for way in ways if way != "error")])
    return ways, dict(zip(subject.starts, found))


def peers(work, subject, ways):
    """{(peer, nfe): theta file}."""
    given, shape = subject.given(0), (PEERS_SAMPLES, *subject.shape)
    noise, truth = work.solved(work.path(subject.part, "peers"), card(subject.model), shape, *given)
    spent = dict.fromkeys(subject.nfe, 0)
    for way in ("error", "features"):
        for rung in json.loads(ways[way].read_text())["rungs"]:
            spent[rung["steps"]] += learning(rung["training"])

    def learn(peer, nfe):
        out = work.path(subject.part, "peers", f"{peer}-{nfe}.json")
        layers = subject.network("layers").replace(".json", ".pt")
        options = ["--layers", layers, "--noise", noise, "--truth", truth, *given, "--nfe", nfe, "--out", out]
        options += ["--budget", spent[nfe]]
        action = lambda: work.run(PYTHON, ROOT / "scripts/few.py", card(subject.model), peer, *options)
        work.unless(out, action, f"{peer}@{nfe}")
        return out

    places = [(peer, nfe) for nfe in PEERS_NFE for peer in PEERS]
    return dict(zip(places, at_once([lambda p=place: learn(*p) for place in places])))


def data(work, subject):
    """The images to be near to, as `train_models --reference` writes them."""
    out = work.path(f"{subject.name}.npy")
    if not out.exists():
        program = ROOT / "target/release/examples/train_models"
        work.run(program, "--model", f"{subject.name}-classifier", "--reference", out.parent)
    return out


def distance(found):
    return found["frechet"], f"{found['frechet']:.3f} ({found['precision']:.2f}, {found['recall']:.2f})"


def table(subject, measure, cells):
    """Lines of one measure, the least of each count in bold."""
    least = {nfe: min(MEASURES[measure](row[nfe])[0] for row in cells.values() if nfe in row) for nfe in subject.nfe}

    def text(row, nfe):
        if nfe not in row:
            return "–"
        value, shown = MEASURES[measure](row[nfe])
        return f"**{shown}**" if value == least[nfe] else shown

    rows = [[HEADINGS.get(name, f"`{name}`"), *(text(row, nfe) for nfe in subject.nfe)] for name, row in cells.items()]
    return [f"{measure}:", "", *page.table(["solver", *map(str, subject.nfe)], rows)]


def twice(work, subject, solver_of, judged_by):
    """A line about the best published solver of twice the evaluations."""
    counts = [nfe for nfe in TWICE if nfe in subject.nfe]
    others = [f"{name}@{2 * nfe}" for name in PUBLISHED for nfe in counts]
    own = [solver_of(nfe) for nfe in counts]
    options = ["--count", min(TWICE_COUNT, subject.count), *judged_by]
    results = work.evaluate(work.path(subject.part, "twice.json"), subject.model, [*own, *others], *options)["results"]
    errors = dict(zip([*own, *others], (result["rmse"] for result in results)))
    told = []
    for nfe in counts:
        best = min((f"{name}@{2 * nfe}" for name in PUBLISHED), key=errors.get)
        told.append(f"{errors[solver_of(nfe)]:.4f} at {nfe} and `{best}` {errors[best]:.4f}")
    return f"Beside the best published one of twice the evaluations, on the first {options[1]} noises: {'; '.join(told)}."


def picture(work, subject, ladder):
    """The ground truth's samples, and those of few evaluations beside UniPC's, in docs/images."""
    asked = [solver for nfe in subject.nfe if nfe <= PICTURED for solver in (f"{ladder}@{nfe}", f"unipc@{nfe}")]
    out = work.path(subject.part, "samples.png")
    options = ["--count", 20, "--seed", 2, *subject.given(1), "--png", out]
    work.evaluate(work.path(subject.part, "pictured.json"), subject.model, asked, *options)
    shutil.copy(out, ROOT / f"docs/images/{subject.part}.png")


def write(work, subject):
    ways, elsewhere = learned(work, subject)
    solver_of = lambda nfe: str(elsewhere[nfe]) if nfe in elsewhere else f"{ways['error']}@{nfe}"
    asked = [("error", nfe, solver_of(nfe)) for nfe in subject.nfe]
    others = [(way, ladder) for way, ladder in ways.items() if way != "error"]
    asked += [(way, nfe, f"{ladder}@{nfe}") for way, ladder in others for nfe in ladders.spent(ladder)]
    asked += [("default", nfe, f"{ways['error']}@{nfe}") for nfe in elsewhere]
    if subject.with_peers:
        asked += [(peer, nfe, str(theta)) for (peer, nfe), theta in peers(work, subject, ways).items()]
    asked += [("start", nfe, solver) for nfe, solver in {**ladders.starts(ways["error"]), **subject.starts}.items()]
    published = {solver["name"]: solver for solver in work.published()}
    asked += [(name, nfe, f"{name}@{nfe}") for name in PUBLISHED for nfe in subject.nfe if allows(published[name], nfe)]
    judged_by = ["--seed", 2, *subject.given(1)]
    options = ["--count", subject.count, *judged_by, "--frechet", "--features", subject.network("judge"), "--data", data(work, subject)]
    solvers = [solver for _, _, solver in asked]
    out = work.evaluate(work.path(subject.part, "evaluation.json"), subject.model, solvers, *options)
    cells = {}
    for (name, nfe, _), result in zip(asked, out["results"]):
        cells.setdefault(name, {})[nfe] = result
    truth = distance(out["distances"]["ground_truth_to_data"])[1]
    rungs = {rung["steps"]: rung for rung in json.loads(ways["error"].read_text())["rungs"]}
    rungs |= {nfe: json.loads(theta.read_text()) for nfe, theta in elsewhere.items()}
    costs = ", ".join(f"{learning(rung['training']) / 1e3:.0f}" for rung in rungs.values())
    truth_takes = f"{out['ground_truth']['evaluations']:.0f} evaluations, and is {truth} from the test images"
    lines = [
        f"`{card(subject.model)}`, guidance {subject.scale}, {subject.count} fresh noises, by nfe. The ground truth takes "
        f"{truth_takes}. To learn `ns` on the error took {costs} thousand evaluations, a backward one as two, ground truth aside.",
        *(f"At {nfe} it begins at `{start}`." for nfe, start in subject.starts.items()),
    ]
    for measure in MEASURES:
        lines += ["", *table(subject, measure, cells)]
    lines += ["", twice(work, subject, solver_of, judged_by)]
    page.replace(subject.page, subject.part, lines)
    picture(work, subject, ways["error"])


PARTS = {subject.part: lambda work, subject=subject: write(work, subject) for subject in SUBJECTS}
