"""What a type checker makes of the installed package: run by `make test-wheel`, never imported."""

from __future__ import annotations

from pathlib import Path

import bespoke_solver as bespoke
import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type


def velocity(t: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    return -(1 + t)[:, None] * x


theta = bespoke.solver("midpoint", 10)
assert_type(theta, bespoke.Theta)
assert_type(theta.nfe, int)
assert_type(theta.family, str)
assert_type(theta.stages(), list[bespoke.Stage])
assert_type(bespoke.Theta.load(Path("theta.json")), bespoke.Theta)

sampler = bespoke.Sampler(theta, threads=2)
sampler.start(np.zeros((4, 3), np.float32))

wrong: str = theta.nfe  # type: ignore[assignment]
bespoke.solver(10, "midpoint")  # type: ignore[arg-type]
