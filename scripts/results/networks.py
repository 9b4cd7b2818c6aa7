"""docs/formats.md: how fast the runtimes evaluate the same networks, from one caller and from several."""

import page
from bespoke import PYTHON, ROOT

#: The other models of digits are the same network.
MODELS = ["digits-fm-ot", "photos-fm-ot"]
RUNTIMES = {"torchscript": "", "onnx": "-onnx", "pt2": "-pt2"}
THREADS = [1, 2]
CALLERS = 8
#: A second of the large one is one evaluation of sixteen samples.
LARGE = [1, 16]


def write(work):
    folder = work.path("networks", "large.json").parent
    work.unless(folder / "large.json", lambda: work.run(PYTHON, ROOT / "scripts/make-large-network.py", folder), "the large network")
    for model in MODELS:
        for runtime in ("onnx", "pt2"):
            export = [ROOT / "scripts/export.py", ROOT / f"models/{model}.json", "--runtime", runtime, "--forward-only"]
            card = folder / f"{model}-{runtime}.json"
            work.unless(card, lambda: work.run(PYTHON, *export, "--out", folder), f"{model} as {runtime}")
    rows, callers = [], []
    for model in [*MODELS, "large"]:
        batches = [1, 16, 250] if model != "large" else LARGE
        found = {key: measured(work, folder, model, *key, batches) for key in cases()}
        for batch in batches:
            rows.append([model, str(batch), *(found[key][batch, 1] for key in cases())])
        batch = batches[1] if model != "large" else 1
        several = {runtime: measured(work, folder, model, runtime, 1, [batch], CALLERS) for runtime in RUNTIMES}
        callers.append([model, str(batch), *(throughputs(several[runtime], batch) for runtime in RUNTIMES)])
    heading = ["model", "batch", *(f"{runtime}, {threads}" for runtime, threads in cases())]
    page.replace("docs/formats.md", "networks", page.table(heading, rows))
    page.replace("docs/formats.md", "callers", page.table(["model", "batch", *RUNTIMES], callers))


def cases():
    return [(runtime, threads) for runtime in RUNTIMES for threads in THREADS]


def measured(work, folder, model, runtime, threads, batches, callers=1):
    """Of each batch and number of callers: what is said of one caller, and evaluations a second for several."""
    shipped = runtime == "torchscript" and model != "large"
    card = ROOT / f"models/{model}.json" if shipped else folder / f"{model}{RUNTIMES[runtime]}.json"
    arguments = ["bench", "network", "--model", card]
    for batch in batches:
        arguments += ["--batch", batch]
    for count in {1, callers}:
        arguments += ["--callers", count]
    variables = [f"{name}={threads}" for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")]
    out = folder / f"{model}-{runtime}-{threads}-{callers}.txt"
    lines = work.printed(out, "/usr/bin/env", *variables, work.program, *arguments).splitlines()
    found = {}
    for line in lines[1:]:
        batch, count, rate, _, milliseconds, outside = line.split()
        if callers == 1:
            found[int(batch), 1] = f"{figures(float(milliseconds))} ms ({outside} %)"
        else:
            found[int(batch), int(count)] = float(rate)
    return found


def throughputs(found, batch):
    one, several = found[batch, 1], found[batch, CALLERS]
    return f"{figures(one)}, {figures(several)} ({several / one:.2f})"


def figures(number):
    """Three of them, or all that are before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
