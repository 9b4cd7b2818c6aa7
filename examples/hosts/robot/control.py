"""Builds control.cpp and runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from compiled import compiled

HERE = Path(__file__).resolve().parent
_REPORT = re.compile(
    r"(?P<steps>\d+) steps, (?P<chunks>\d+) chunks of (?P<evaluations>\d+) evaluations\n"
    r"a step: median (?P<median>[\d.]+) us, 99.9 % within (?P<most>[\d.]+) us, the worst (?P<worst>[\d.]+) us\n"
    r"allocations: (?P<beside>\d+) beside the network, (?P<inside>\d+) in it; waits: (?P<waits>\d+)\n"
)


def build(folder):
    """The control loop, in ``folder``."""
    return compiled(Path(folder) / "control", HERE / "control.cpp", HERE / "counted.cpp")


def run(program, *arguments):
    """What a run says of itself: steps, chunks, evaluations, microseconds of a step, allocations and waits, and by whom."""
    environment = {**os.environ, "RAYON_NUM_THREADS": "1"}
    ran = subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip())
    return read(ran.stdout)


def read(text):
    numbers = _REPORT.match(text)
    if numbers is None:
        raise RuntimeError(f"control says {text!r}, expected its report")
    found = {name: float(number) for name, number in numbers.groupdict().items()}
    return {**found, "callers": {name: int(count) for count, name in re.findall(r"^  (\d+) by (\S+)$", text, re.MULTILINE)}}
