"""docs/jobs.md: the memory that an evaluation of large samples takes, by their count."""

import page
from bespoke import ROOT, at_once

COUNTS = [84, 2000]
MIB_A_SAMPLE = 3 * 256 * 256 * 4 / 2**20


def write(work):
    folder = work.path("large")
    work.run(ROOT / "scripts/make-large-mixture.py", folder, 2)
    common = ["eval", "--quiet", "--model", folder / "large.json", "--solver", "midpoint@2", "--rtol", "1e-2", "--atol", "1e-2"]

    def job(count):
        return lambda: work.peak(folder / f"peak-{count}.txt", *common, "--count", count)

    peaks = at_once([job(count) for count in COUNTS])
    rows = [[str(count), f"{count * MIB_A_SAMPLE:.0f}", str(peak)] for count, peak in zip(COUNTS, peaks)]
    page.replace("docs/jobs.md", "memory", page.table(["samples", "their noises, MiB", "peak, MiB"], rows))
