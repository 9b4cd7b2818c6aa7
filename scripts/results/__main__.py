"""Trains solvers for the example networks, compares them with the published ones, and writes every table and
picture of the docs that comes of it: docs/results.md, and the marked parts of the other pages.

    .venv-python/bin/python scripts/results [--out FOLDER] [--count N] [PART...]

What is found in FOLDER is not made again, so an interrupted run goes on. `make results` runs all.
"""

import argparse
import os
import time

import ablations
import bounds
import carried
import choosing
import conditions
import curves
import demo
import engines
import forward
import many
import memory
import networks
import optimizers
import page
import passes
import peers
import schedulers
import seeds
import solvers
import three_to_ten
import trainings
from bespoke import Work

PARTS = {
    "trainings": trainings.write,
    "optimizers": optimizers.write,
    "forward": forward.write,
    "many": many.write,
    "peers": peers.write,
    "engines": engines.write,
    "ablations": ablations.write,
    "curves": curves.write,
    "solvers": solvers.write,
    "conditions": conditions.write,
    "memory": memory.write,
    "networks": networks.write,
    "schedulers": schedulers.write,
    "choosing": choosing.write,
    "demo": demo.write,
}
# Made where they are asked for alone.
APART = {**three_to_ten.PARTS, "bounds": bounds.write, "carried": carried.write, "passes": passes.write, "seeds": seeds.write}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results", help="where thetas, evaluations and reports are kept [default: results]")
    parser.add_argument("--count", type=int, default=10000, help="noises of the comparisons [default: 10000]")
    parser.add_argument(
        "part", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} [default: all], {', '.join(APART)} by name only"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(PARTS) - set(APART):
        parser.error(f"unknown part {', '.join(unknown)}; there are {', '.join([*PARTS, *APART])}")
    work = Work(arguments.out, arguments.count)
    for name in arguments.part or PARTS:
        started = time.monotonic()
        (PARTS | APART)[name](work)
        print(f"{name}: {(time.monotonic() - started) / 60:.0f} min", flush=True)
    if not arguments.part:
        cores = os.cpu_count()
        hours = f"It took {work.hours():.1f} hours of one core where this page was made, so {work.hours() / cores:.1f} on its {cores}."
        page.replace("docs/results.md", "time", [hours])


if __name__ == "__main__":
    main()
