"""What a theta of family ``ns`` for a pipeline starts from: a published solver on the pipeline's own grid.

Its table is one of the family's, so what is learned is not worse than it. `train` by itself knows nothing of the
pipeline, and also starts from ``regridded``; it is given both, and goes on from the better one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .convention import Convention
from .errors import BespokeError
from .published import grid_text
from .theta import Theta, solver

#: The published solver.
_NAME = "unipc"


def count_of(options: Mapping[str, Any]) -> int | None:
    """Evaluations of the theta that is to be learned, where it is of family ``ns`` and its start was not chosen."""
    if options.get("family") != "ns" or options.get("init"):
        return None
    counts = [options[key] for key in ("nfe", "steps") if options.get(key) is not None] or [10]
    count = counts[0][0] if isinstance(counts[0], (list, tuple)) and len(counts[0]) == 1 else counts[0]
    return count if isinstance(count, int) and count > 0 else None


def published_start(levels: np.ndarray, convention: Convention, count: int) -> Theta | None:
    """The solver on noise levels, from all of the model's noise to all of its data; None where they are none for it."""
    levels = np.unique(levels)[::-1]
    times = convention.time_of_levels(levels)
    times[0], times[-1] = 0.0, 1.0
    if len(times) != count + 1 or not np.all(np.diff(times) > 0):
        return None
    try:
        return solver(f"{_NAME}:{grid_text(times)}", count, dict(convention.path)).compile()
    except BespokeError:
        return None  # its table is not finite there


@contextlib.contextmanager
def starting(options: Mapping[str, Any], start: Theta | None) -> Iterator[dict[str, Any]]:
    """``options`` with a start beside the usual one. What is kept to be gone on from has the start beside it."""
    if start is None:
        yield dict(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = options.get("checkpoint")
        path = Path(folder, "start.json") if kept is None else Path(f"{kept}.start.json")
        start.save(path)
        yield {**options, "init": [str(path), "regridded"]}


def named_start(theta: Theta, given: Mapping[str, Any]) -> Theta:
    """The theta whose notes say what it started from in place of where that lay."""
    document = theta.document
    start = document.get("training", {}).get("start", {})
    if not given.get("init") or start.get("solver") != given["init"][0]:
        return theta
    start["solver"] = f"{_NAME}@{theta.nfe} on the pipeline's grid"
    named = Theta.parse(document)
    if given.get("out") is not None:
        named.save(given["out"])
    return named
