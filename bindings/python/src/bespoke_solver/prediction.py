"""What a step of `BespokeScheduler` answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from .grid import Grid


@dataclass
class _Output(SchedulerOutput):
    """diffusers' outputs are dataclasses of tensors."""


class Prediction(_Output):
    """The next sample, and the data that the model's output points to, computed where it is asked for."""

    def __init__(self, following: torch.Tensor, original: Callable[[], torch.Tensor]) -> None:
        super().__init__(prev_sample=following)
        object.__setattr__(self, "_original", original)

    @property
    def pred_original_sample(self) -> torch.Tensor:
        """x_0 as the model predicts it."""
        original: torch.Tensor = self._original()
        return original

    def __reduce__(self) -> tuple[Any, ...]:
        return SchedulerOutput, (self.prev_sample,)


def predicted(grid: Grid, k: int, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """The data that a model's output at a grid's evaluation ``k`` points to, in the pipeline's scale."""
    convention, level = grid.convention, float(grid.levels[k])
    output = output[:, : sample.shape[1]] * convention.sign
    over = 1 / level if level else float("inf")
    if convention.is_flow:
        sigma = 1 / (1 + over)
        alpha = 1 - sigma
    else:
        sigma = 1 / (1 + over * over) ** 0.5
        alpha = (1 - sigma * sigma) ** 0.5
    data: Any = {
        "flow": lambda: sample - sigma * output,
        "epsilon": lambda: (sample - sigma * output) / alpha,
        "v": lambda: alpha * sample - sigma * output,
        "x1": lambda: output,
    }[convention.output]()
    return data * convention.data_scale
