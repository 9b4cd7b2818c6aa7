"""Learned few-step solvers for flow and diffusion models: libbespoke from Python.

Times run from noise, 0, to data, 1; arrays are ``[batch, ...]`` of any library that speaks DLPack. `BespokeScheduler`
and `TorchField` need torch, the former diffusers too; they are imported when first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._native import lib as _lib
from .errors import BespokeError, FormatError, InvalidArgumentError, NonFiniteError
from .sampler import Row, Sampler, sample, step
from .theta import Combination, Stage, Theta, VelocityScalars, solver, velocity_scalars
from .training import Progress, train

if TYPE_CHECKING:
    from .field import TorchField
    from .scheduler import BespokeScheduler

__version__: str = _lib.bespoke_version().decode()

__all__ = [
    "BespokeError",
    "BespokeScheduler",
    "Combination",
    "FormatError",
    "InvalidArgumentError",
    "NonFiniteError",
    "Progress",
    "Row",
    "Sampler",
    "Stage",
    "Theta",
    "TorchField",
    "VelocityScalars",
    "sample",
    "solver",
    "step",
    "train",
    "velocity_scalars",
]


def __getattr__(name: str) -> Any:
    if name == "BespokeScheduler":
        from .scheduler import BespokeScheduler

        return BespokeScheduler
    if name == "SchedulerMixin":
        # Loading a pipeline, diffusers tells what a class is by its base, which it looks for beside it.
        from .base import SchedulerMixin

        return SchedulerMixin
    if name == "TorchField":
        from .field import TorchField

        return TorchField
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
