"""How a diffusers model counts time and what it predicts, in the library's terms.

diffusers runs from data, timestep 0, to noise, the last timestep; the library from noise, 0, to data, 1. A
flow-matching model is on the path ``fm-ot``, with timestep (1 - t) * num_train_timesteps. Any other is on a
variance-preserving path, alpha^2 + sigma^2 = 1, known at some noise levels rho = sigma / alpha. Two such paths differ in
nothing but time (BES Theorem 2.3, with scale 1), so the library's ``vp`` stands for it: its rates are chosen to have the
model's rho at the noisiest level, its end to have it at the least, and in between ``timestep_at`` says at which timestep
rho is the same. Where the noisiest level is no data at all (alpha = 0), ``cosine`` stands in for ``vp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .configuration import understand
from .theta import VelocityScalars, velocity_scalars

#: What diffusers calls a prediction, and what the library does. ``minus_v`` is EDM's.
OUTPUTS = {"flow_prediction": "flow", "epsilon": "epsilon", "v_prediction": "v", "sample": "x1", "minus_v": "v"}

#: Noise levels of a path that is known as a function; between them timesteps are interpolated.
_LEVELS = 4096


@dataclass(frozen=True)
class Convention:
    """A model's time and output.

    Attributes:
        output: What it predicts, as the library calls it.
        path: Its scheduler, as the library takes it; solver time [0, 1] is [0, end] of it.
        times: Solver times, increasing, at which ...
        timesteps: ... it is given these timesteps; between them, linearly.
        sign: -1 where the model answers minus ``output``.
        data_scale: Standard deviation of the data that the path is of: samples are this many times as large.
    """

    output: str
    path: Mapping[str, Any]
    times: np.ndarray
    timesteps: np.ndarray
    sign: float = 1.0
    data_scale: float = 1.0

    @classmethod
    def flow(cls, num_train_timesteps: int, output: str = "flow", to_data: bool = False) -> Convention:
        """A flow-matching model: x_t = t data + (1 - t) noise, output noise - data.

        ``to_data``: its timesteps grow towards the data, and so it answers data - noise.
        """
        last = float(num_train_timesteps)
        timesteps = np.array([0.0, last] if to_data else [last, 0.0])
        return cls(output, {"name": "fm-ot"}, np.array([0.0, 1.0]), timesteps, -1.0 if to_data else 1.0)

    @classmethod
    def variance_preserving(cls, output: str, alphas_cumprod: Sequence[float]) -> Convention:
        """A model with alpha_t^2 = ``alphas_cumprod`` at timesteps 0, 1, ...; the last may be 0."""
        squares = np.asarray(alphas_cumprod, np.float64)
        timesteps = np.arange(len(squares), dtype=np.float64)
        if len(squares) < 2 or not (np.all(np.diff(squares) < 0) and squares[0] < 1 and squares[-1] >= 0):
            raise ValueError("alphas_cumprod is not decreasing within [0, 1)")
        if squares[-1] == 0.0:
            t = 2 / math.pi * np.arcsin(np.sqrt(squares))
            end = float(t[0])
            return cls(output, {"name": "cosine", "end": end}, t[::-1] / end, timesteps[::-1])
        return cls._between(output, -np.log(squares), timesteps)

    @classmethod
    def of_sigmas(cls, output: str, sigma_min: float, sigma_max: float, sigma_data: float, clock: str) -> Convention:
        """A model that is given its noise level, sigma = rho sigma_data, as ln(sigma) / 4 or atan(sigma) 2 / pi."""
        if not 0.0 < sigma_min < sigma_max < math.inf or not 0.0 < sigma_data < math.inf:
            raise ValueError(
                f"sigma_min is {sigma_min}, sigma_max {sigma_max}, sigma_data {sigma_data}, expected 0 < sigma_min < sigma_max"
            )
        sigmas = np.geomspace(sigma_min, sigma_max, _LEVELS)
        timesteps = np.log(sigmas) / 4 if clock == "log-sigma" else np.arctan(sigmas) * 2 / math.pi
        return replace(cls._between(output, np.log1p((sigmas / sigma_data) ** 2), timesteps), data_scale=sigma_data)

    @classmethod
    def of_angles(cls, output: str) -> Convention:
        """alpha = cos(a pi / 2), sigma = sin(a pi / 2), with timestep a in [0, 1]."""
        return cls(output, {"name": "cosine"}, np.array([0.0, 1.0]), np.array([1.0, 0.0]))

    @classmethod
    def _between(cls, output: str, exponents: np.ndarray, timesteps: np.ndarray) -> Convention:
        """From -ln alpha^2, increasing as the timesteps do."""
        path = vp_path(float(exponents[0]), float(exponents[-1]), len(exponents) * float(exponents[0]))
        t = vp_times(path, exponents)
        path["end"] = float(t[0])
        return cls(output, path, t[::-1] / t[0], timesteps[::-1])

    def timestep_at(self, times: Any) -> np.ndarray:
        """The timesteps that the model is given at solver times."""
        return np.interp(times, self.times, self.timesteps)

    def timestep_slope(self, times: Any) -> np.ndarray:
        """The derivative of ``timestep_at``."""
        slopes = np.diff(self.timesteps) / np.diff(self.times)
        return slopes[np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(slopes) - 1)]

    def time_of(self, timesteps: Any) -> np.ndarray:
        """The solver times at which the model is given ``timesteps``."""
        order = slice(None) if self.timesteps[0] < self.timesteps[-1] else slice(None, None, -1)
        return np.interp(timesteps, self.timesteps[order], self.times[order])

    def scalars(self, times: Any) -> list[VelocityScalars]:
        """How the model's output, times ``sign``, makes the velocity at solver times."""
        return velocity_scalars(self.path, self.output, times)

    @property
    def is_flow(self) -> bool:
        return self.path["name"] == "fm-ot"

    def levels_of(self, times: Any) -> np.ndarray:
        """rho = sigma / alpha at solver times; infinite where there is no data."""
        scalars = velocity_scalars(self.path, "velocity", times)
        return np.array([s.sigma / s.alpha if s.alpha > 0 else np.inf for s in scalars])

    def time_of_levels(self, levels: Any) -> np.ndarray:
        """The solver times of noise levels rho; those outside of the path's are its ends."""
        levels = np.asarray(levels, np.float64)
        if self.is_flow:
            return 1 / (1 + levels)
        with np.errstate(divide="ignore"):
            exponents = np.log1p(levels**2)
        end = self.path.get("end", 1.0)
        if self.path["name"] == "cosine":
            times = 2 / math.pi * np.arcsin(np.exp(-exponents / 2))
        else:
            times = vp_times(self.path, exponents)
        return np.clip(times / end, 0.0, 1.0)


def vp_path(least: float, most: float, beta_min: float) -> dict[str, Any]:
    """The library's ``vp`` with -ln alpha^2 = ``most`` at its start: T(s) = s^2 (beta_max - beta_min) / 2 + s beta_min, s = 1 - t."""
    beta_min = min(max(beta_min, least), most / 2)
    return {"name": "vp", "beta_min": beta_min, "beta_max": 2 * most - beta_min}


def vp_times(path: Mapping[str, Any], exponents: Any) -> np.ndarray:
    """Where the path has -ln alpha^2 = ``exponents``, in its own time."""
    rise, beta_min = path["beta_max"] - path["beta_min"], path["beta_min"]
    root = np.sqrt(beta_min**2 + 2 * rise * exponents)
    return np.maximum(1 - 2 * exponents / (root + beta_min), 0.0)


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
    if schedule == "sigmoid":
        return (end - start) / (1 + np.exp(-np.linspace(-6, 6, count))) + start
    raise ValueError(f"beta_schedule is {schedule!r}, expected linear, scaled_linear, squaredcos_cap_v2 or sigmoid")


def alphas_cumprod_of(training: Mapping[str, Any]) -> np.ndarray:
    """alpha^2 at timesteps 0, 1, ... of a model with betas."""
    keys = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "trained_betas")
    squares = np.cumprod(1.0 - betas_of(*(training[key] for key in keys)))
    if not np.all(np.isfinite(squares)):
        raise ValueError("trained_betas hold a value that is not finite")
    if scale := training.get("snr_shift_scale"):
        squares = squares / (scale + (1 - scale) * squares)
    if training.get("rescale_betas_zero_snr"):
        # Lin et al. 2023, arXiv:2305.08891, algorithm 1: alpha is shifted to 0 at the end and scaled to keep its start.
        alphas = np.sqrt(squares)
        squares = ((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])) ** 2
        if training["prediction_type"] == "epsilon":
            squares[-1] = 2.0**-24  # noise alone says nothing of the data; diffusers' schedulers stop here too
    return squares


def convention_of(config: Mapping[str, Any]) -> Convention:
    """The convention that a scheduler's configuration describes: diffusers' own, or `BespokeScheduler`'s."""
    training = understand(config)
    prediction = training["prediction_type"]
    if prediction not in OUTPUTS:
        raise ValueError(f"prediction_type is {prediction!r}, expected one of {', '.join(OUTPUTS)}")
    output, kind = OUTPUTS[prediction], training["noise_path"]
    if kind == "flow" or (kind is None and prediction == "flow_prediction"):
        return Convention.flow(training["num_train_timesteps"], output, training["clock"] == "data")
    if kind == "angle":
        return Convention.of_angles(output)
    if kind == "sigmas":
        smallest, largest, data = (float(training[f"sigma_{key}"]) for key in ("min", "max", "data"))
        sign = -1.0 if prediction == "minus_v" else 1.0
        return replace(Convention.of_sigmas(output, smallest, largest, data, training["clock"]), sign=sign)
    return Convention.variance_preserving(output, alphas_cumprod_of(training).tolist())
