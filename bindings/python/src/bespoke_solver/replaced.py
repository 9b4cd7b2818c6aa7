"""The scheduler that is replaced: the noise levels it would step through, which published solvers take over.

It is made of its own configuration and asked, so that whatever it does to its grid is honoured as it does it: spacing,
offset, karras and other sigmas, shifts that depend on resolution, the last sigma.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np

from .configuration import REFUSED, UNDERSTOOD
from .convention import Convention

#: Schedulers with points between their levels, and a scheduler with the same levels alone.
_LEVELS_OF = {
    "HeunDiscreteScheduler": "EulerDiscreteScheduler",
    "KDPM2DiscreteScheduler": "EulerDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler": "EulerDiscreteScheduler",
    "DPMSolverSDEScheduler": "EulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler": "FlowMatchEulerDiscreteScheduler",
    "PNDMScheduler": "DDIMScheduler",
}


def named(config: Any) -> dict[str, Any]:
    """The configuration of a scheduler, or of a scheduler's configuration, with ``_class_name`` where it can be told.

    One that was made by its constructor does not say its class: its keys do.
    """
    if not isinstance(config, Mapping):
        return {**config.config, "_class_name": type(config).__name__}
    found = dict(config)
    if found.get("_class_name") is None:
        keys = {key for key in found if not key.startswith("_")}
        found["_class_name"] = next((name for name in _classes() if _keys(name) == keys), None)
    return found


def _classes() -> list[str]:
    return [name for name in [*sorted(UNDERSTOOD), *sorted(REFUSED)] if hasattr(diffusers, name)]


def _keys(name: str) -> set[str]:
    return set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self"}


def clocked(replaced: Mapping[str, Any], convention: Convention, timesteps: Any, sigmas: Any, mu: float | None) -> Convention:
    """The convention where a pipeline hands over timesteps beside sigmas, and its scheduler shifts these alone.

    The model is then given the timestep of a noise level before the shift, as CogView4's is.

    Raises:
        ValueError: They are other than timestep = sigma * num_train_timesteps.
    """
    last = float(replaced.get("num_train_timesteps", 1000))
    given = np.asarray(sigmas, np.float64) - np.asarray(timesteps, np.float64) / last
    if not convention.is_flow or not np.all(np.abs(given) <= 1 / last):
        raise ValueError("timesteps and sigmas are both given, expected one, or timesteps of sigma * num_train_timesteps")
    scheduler = _made(replaced)
    if "mu" not in inspect.signature(scheduler.set_timesteps).parameters:
        return convention
    before = np.linspace(1.0, 0.0, 513)[:-1]
    scheduler.set_timesteps(timesteps=(before * last).tolist(), sigmas=before.tolist(), mu=mu)
    shifted = np.asarray(scheduler.sigmas.double().cpu())[:-1]
    return replace(convention, times=np.append(1 - shifted, 1.0), timesteps=np.append(before, 0.0) * last)


def _made(replaced: Mapping[str, Any], name: str | None = None) -> Any:
    """A scheduler of the configuration, of its class or of the one that ``name`` names."""
    kind = getattr(diffusers, name or _LEVELS_OF.get(replaced["_class_name"], replaced["_class_name"]))
    return kind.from_config({key: value for key, value in replaced.items() if key != "_class_name"})


def begun_level(
    replaced: Mapping[str, Any],
    convention: Convention,
    steps: int,
    index: int,
    sigmas: Sequence[float] | None = None,
    timesteps: Sequence[float] | None = None,
    mu: float | None = None,
) -> float:
    """The noise level at which the replaced scheduler begins where a pipeline leaves out ``index`` of ``steps`` steps.

    Args: as of `levels_of`; times that the scheduler does not take are only counted.
    """
    scheduler = _made(replaced, replaced["_class_name"])
    accepted = set(inspect.signature(scheduler.set_timesteps).parameters)
    given = {"sigmas": sigmas, "timesteps": timesteps, "mu": mu}
    given = {key: value for key, value in given.items() if value is not None and key in accepted}
    if "sigmas" not in given and "timesteps" not in given:
        given["num_inference_steps"] = steps
    scheduler.set_timesteps(**given)
    return float(levels_in(scheduler, convention)[index * int(getattr(scheduler, "order", 1))])


def levels_of(
    replaced: Mapping[str, Any],
    convention: Convention,
    steps: int,
    sigmas: Sequence[float] | None = None,
    timesteps: Sequence[float] | None = None,
    mu: float | None = None,
) -> np.ndarray:
    """Noise levels rho = sigma / alpha, decreasing, ``[steps + 1]``, where the replaced scheduler takes ``steps`` steps.

    Args:
        replaced: Its configuration, with ``_class_name``.
        convention: Of the model.
        steps: Their number.
        sigmas: The pipeline's own, as that scheduler takes them.
        timesteps: Likewise.
        mu: Likewise: the shift of a resolution.
    """
    name = replaced["_class_name"]
    scheduler = _made(replaced)
    accepted = set(inspect.signature(scheduler.set_timesteps).parameters)
    given = {"sigmas": sigmas, "timesteps": timesteps, "mu": mu}
    given = {key: value for key, value in given.items() if value is not None}
    if refused := sorted(set(given) - accepted - {"mu"}):
        raise ValueError(f"{refused[0]} are given, expected none: {name}, which is replaced, does not take them")
    given = {key: value for key, value in given.items() if key in accepted}
    if "sigmas" not in given and "timesteps" not in given:
        given["num_inference_steps"] = steps
    scheduler.set_timesteps(**given)
    levels = levels_in(scheduler, convention)
    if len(levels) == steps + 1 and 0 < levels[-1] == levels[-2]:
        levels[-1] *= 1 - 1e-6  # a last step of no length, as where the last timestep is 0 and the end is its level
    if len(levels) != steps + 1 or not np.all(np.diff(levels) < 0) or levels[-1] < 0:
        raise ValueError(f"{name}, which is replaced, has no {steps} decreasing noise levels: {levels.tolist()}")
    return levels


def levels_in(scheduler: Any, convention: Convention) -> np.ndarray:
    """Noise levels rho of a scheduler's steps and of its end."""
    sigmas = getattr(scheduler, "sigmas", None)
    timesteps = np.asarray(scheduler.timesteps.double().cpu()).reshape(-1)
    if sigmas is None or len(sigmas) != len(timesteps) + 1:
        # DDIM and its kin know timesteps alone.
        levels = convention.levels_of(convention.time_of(timesteps))
        return np.append(levels, 0.0 if getattr(scheduler.config, "set_alpha_to_one", True) else convention.levels_of([1.0])[0])
    values = np.asarray(sigmas.double().cpu()).reshape(-1)
    if convention.is_flow:
        if getattr(scheduler.config, "invert_sigmas", False):
            values = 1 - values
        with np.errstate(divide="ignore"):
            return values / (1 - values)
    # The first level of an infinite one is cut by the schedulers; the model's own stands for it.
    return values / convention.data_scale
