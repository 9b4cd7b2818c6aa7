"""Runs `bespoke`, as many at once as there are cores, and keeps what comes out."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With numpy and torch.
PYTHON = ROOT / ".venv-python/bin/python"
DIGITS = ["digits-fm-ot", "digits-cosine", "digits-vp"]
MODELS = [*DIGITS, "photos-fm-ot"]


class Work:
    """The folder of results. One libtorch thread a run: small networks gain nothing from more."""

    def __init__(self, out, count):
        self.folder = Path(out).resolve()
        self.count = count  # noises of the comparisons
        self.program = os.environ.get("BESPOKE", str(ROOT / "target/release/bespoke"))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def path(self, *parts):
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, program, *arguments, cwd=ROOT):
        """What a program prints, and the most it had resident, in MiB."""
        command = [str(word) for word in (program, *arguments)]
        process = subprocess.Popen(command, cwd=cwd, env=self.environment, stdout=subprocess.PIPE, text=True)
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)}\nended with {os.waitstatus_to_exitcode(status)}")
        return printed, usage.ru_maxrss / 1024

    def unless(self, out, action, name):
        """The file that an action makes, made unless it is there."""
        if not out.exists():
            print(name + "\n", end="", flush=True)
            started = time.monotonic()
            action()
            with self.path("seconds").open("a") as log:
                log.write(f"{time.monotonic() - started:.0f} {out.name}\n")
        return out

    def make(self, out, *arguments):
        """The file that a command of `bespoke` writes to `--out` or `--json`."""
        name = " ".join(map(str, ["bespoke", *arguments]))
        return self.unless(out, lambda: self.run(self.program, *arguments), name)

    def printed(self, out, program, *arguments, cwd=ROOT):
        """What a program prints, kept in a file."""
        name = " ".join(map(str, [Path(program).name, *arguments]))
        self.unless(out, lambda: out.write_text(self.run(program, *arguments, cwd=cwd)[0]), name)
        return out.read_text()

    def peak(self, out, *arguments):
        """The most that a command of `bespoke` had resident, in MiB, kept in a file."""
        name = " ".join(map(str, ["bespoke", *arguments]))
        self.unless(out, lambda: out.write_text(f"{self.run(self.program, *arguments)[1]:.0f}\n"), name)
        return int(out.read_text())

    def hours(self):
        """What all of it took so far, in hours of one core."""
        log = self.path("seconds")
        lines = log.read_text().splitlines() if log.exists() else []
        return sum(int(line.split()[0]) for line in lines) / 3600

    def train(self, out, model, *options):
        # A run that was stopped left what it had, and a checkpoint to go on from.
        if out.exists() and stopped(json.loads(out.read_text())):
            out.unlink()
        return self.make(out, "train", "--quiet", "--model", card(model), *options, "--out", out, "--resume")

    def evaluate(self, out, model, solvers, *options):
        """The document that `bespoke eval` writes, made anew where the one that is kept is of other solvers."""
        solvers = list(map(str, solvers))
        if out.exists() and evaluated(json.loads(out.read_text())) != solvers:
            out.unlink()
        named = [word for solver in solvers for word in ("--solver", solver)]
        self.make(out, "eval", "--quiet", "--model", card(model), *named, *options, "--json", out)
        found = json.loads(out.read_text())
        if evaluated(found) != solvers:
            sys.exit(f"{out} is of {evaluated(found)}, not of {solvers}")
        return found

    def solved(self, folder, card, shape, *options):
        """Files of noises of a shape that numpy draws, and of their ground truth."""
        noise, truth = (self.path(folder, f"{name}.npy") for name in ("noise", "truth"))
        drawn = f"import numpy; numpy.save({str(noise)!r}, numpy.random.default_rng(7).standard_normal({shape}, 'float32'))"
        self.unless(noise, lambda: self.run(PYTHON, "-c", drawn), "noises")
        self.make(truth, "sample", "--model", card, "--noise", noise, "--solver", "gt", *options, "--out", truth)
        return noise, truth

    def published(self):
        """The published solvers: {name, nfe: {least, step, most}, ...}."""
        return json.loads(self.run(self.program, "solvers", "--json")[0])


def card(model):
    return f"models/{model}.json"


def evaluated(document):
    """The solvers that an evaluation is of, as they were asked for."""
    return [result["solver"] for result in document["results"]]


def stopped(trained):
    """Whether a theta, or a ladder with it, is of a run that did not come to its end."""
    return any(theta["training"].get("stopped") for theta in trained.get("rungs", [trained]))


def at_once(jobs):
    """The results of functions without arguments, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def allows(solver, nfe):
    least, step, most = (solver["nfe"][key] for key in ("least", "step", "most"))
    return least <= nfe <= most and (nfe - least) % step == 0


def greatest_allowed(solver, nfe):
    """The greatest number of evaluations up to nfe that the solver can have, or None."""
    least, step, most = (solver["nfe"][key] for key in ("least", "step", "most"))
    return min(most, nfe - (nfe - least) % step) if nfe >= least else None


def equivalents(evaluations):
    """In forward evaluations, a backward one as two."""
    return evaluations["forward"] + 2 * evaluations["backward"]


def learning(training):
    """Evaluations that learning took by a theta's notes, ground truth aside."""
    return equivalents(training["evaluations"]) - training["ground_truth_evaluations"]
