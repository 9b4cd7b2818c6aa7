"""How a diffusers model counts time and what it predicts, in the library's terms.

diffusers runs from data, timestep 0, to noise, the last timestep; the library from noise, 0, to data, 1. A
flow-matching model is on the path ``fm-ot``, with timestep (1 - t) * num_train_timesteps. A model with betas is on a
variance-preserving path that is known at its training timesteps only. Two such paths differ in nothing but time (BES
Theorem 2.3, with scale 1), so the library's ``vp`` stands for it: its rates are chosen to have the model's snr at the
last timestep, its end to have it at timestep 0, and in between ``timestep_at`` says at which timestep the snr is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .theta import VelocityScalars, velocity_scalars

#: What diffusers calls a prediction, and what the library does.
OUTPUTS = {"flow_prediction": "flow", "epsilon": "epsilon", "v_prediction": "v", "sample": "x1"}


@dataclass(frozen=True)
class Convention:
    """A model's time and output.

    Attributes:
        output: What it predicts, as the library calls it.
        path: Its scheduler, as the library takes it; solver time [0, 1] is [0, end] of it.
        times: Solver times, increasing, at which ...
        timesteps: ... it is given these timesteps; between them, linearly.
    """

    output: str
    path: Mapping[str, Any]
    times: np.ndarray
    timesteps: np.ndarray

    @classmethod
    def flow(cls, num_train_timesteps: int) -> Convention:
        """A flow-matching model: x_t = t data + (1 - t) noise, output noise - data."""
        return cls("flow", {"name": "fm-ot"}, np.array([0.0, 1.0]), np.array([float(num_train_timesteps), 0.0]))

    @classmethod
    def variance_preserving(cls, output: str, alphas_cumprod: Sequence[float]) -> Convention:
        """A model with alpha_t^2 = ``alphas_cumprod`` at timesteps 0, 1, ...."""
        exponents = -np.log(np.asarray(alphas_cumprod, np.float64))
        if len(exponents) < 2 or not (np.all(np.diff(exponents) > 0) and exponents[0] > 0):
            raise ValueError("alphas_cumprod is not decreasing within (0, 1)")
        # -ln alpha^2 = T(s) = s^2 (beta_max - beta_min) / 2 + s beta_min at s = 1 - t, and T(1) that of the last timestep.
        last = float(exponents[-1])
        beta_min = min(len(exponents) * float(exponents[0]), last / 2)
        beta_max = 2 * last - beta_min
        root = np.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * exponents)
        t = np.maximum(1 - 2 * exponents / (root + beta_min), 0.0)
        end = float(t[0])
        path = {"name": "vp", "beta_min": beta_min, "beta_max": beta_max, "end": end}
        return cls(output, path, t[::-1] / end, np.arange(len(t), dtype=np.float64)[::-1])

    def timestep_at(self, times: Any) -> np.ndarray:
        """The timesteps that the model is given at solver times."""
        return np.interp(times, self.times, self.timesteps)

    def timestep_slope(self, times: Any) -> np.ndarray:
        """The derivative of ``timestep_at``."""
        slopes = np.diff(self.timesteps) / np.diff(self.times)
        return slopes[np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(slopes) - 1)]

    def time_of(self, timesteps: Any) -> np.ndarray:
        """The solver times at which the model is given ``timesteps``."""
        return np.interp(timesteps, self.timesteps[::-1], self.times[::-1])

    def scalars(self, times: Any) -> list[VelocityScalars]:
        """How the model's output makes the velocity at solver times."""
        return velocity_scalars(self.path, self.output, times)


def betas_of(
    schedule: str, start: float, end: float, count: int, trained: Sequence[float] | None = None
) -> np.ndarray:
    """The betas of diffusers' schedules, in float64."""
    if trained is not None:
        return np.asarray(trained, np.float64)
    if schedule == "linear":
        return np.linspace(start, end, count)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    if schedule == "squaredcos_cap_v2":

        def alpha_bar(t: float) -> float:
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        return np.array([min(1 - alpha_bar((i + 1) / count) / alpha_bar(i / count), 0.999) for i in range(count)])
    raise ValueError(f"beta_schedule is {schedule!r}, expected linear, scaled_linear or squaredcos_cap_v2")


def convention_of(
    prediction_type: str,
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
    beta_schedule: str,
    trained_betas: Sequence[float] | None,
) -> Convention:
    """The convention that a scheduler's configuration describes."""
    if prediction_type not in OUTPUTS:
        raise ValueError(f"prediction_type is {prediction_type!r}, expected one of {', '.join(OUTPUTS)}")
    if prediction_type == "flow_prediction":
        return Convention.flow(num_train_timesteps)
    betas = betas_of(beta_schedule, beta_start, beta_end, num_train_timesteps, trained_betas)
    return Convention.variance_preserving(OUTPUTS[prediction_type], np.cumprod(1.0 - betas).tolist())
