"""A published solver on noise levels of one's own choice, from any of them on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .convention import Convention, vp_path, vp_times
from .theta import Theta, VelocityScalars, solver, velocity_scalars

#: Solvers of the velocity in the path's own time, and evaluations of one of their steps.
CLASSICAL = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "rk4": 4, "ab2": 1, "ab3": 1, "ab4": 1}


@dataclass(frozen=True)
class Frame:
    """How one evaluation of a model is put to a table made for another state and output.

    The table's state is ``state`` times the model's, its output ``output`` times the model's answer plus ``x`` times
    the model's sample, and the model's next sample ``following`` times the table's.
    """

    state: float
    output: float
    x: float
    following: float

    @property
    def is_plain(self) -> bool:
        return (self.state, self.output, self.x, self.following) == (1.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Course:
    """A solver for a model's output: a table, and at each of its evaluations the noise level, and how to put it.

    Attributes:
        theta: The table, which takes what the frames make.
        levels: rho = sigma / alpha at each evaluation.
        timesteps: What the model is given.
        end: That of what the last one leads to.
        velocity: The table's velocity is the first number times its state plus the second times its output.
        frames: One an evaluation; None where nothing is to be done.
    """

    theta: Theta
    levels: np.ndarray
    timesteps: np.ndarray
    end: float
    velocity: tuple[tuple[float, float], ...]
    frames: tuple[Frame, ...] | None


def intervals(name: str, nfe: int) -> int | None:
    """Intervals of a grid for ``nfe`` evaluations; None where there is no such number."""
    if name == "edm":
        return (nfe + 1) // 2 if nfe % 2 else None
    per_step = evaluations_of_step(name)
    return nfe // per_step if nfe % per_step == 0 else None


def evaluations_of_step(name: str) -> int:
    """Evaluations from one level of a grid to the next."""
    return 2 if name == "edm" else CLASSICAL.get(name, 1)


def takes_levels(name: str, convention: Convention) -> bool:
    """Whether a solver takes over levels: a classical one integrates over the path's time, and keeps a grid in that."""
    return ":" not in name and (convention.is_flow or name not in CLASSICAL)


def learned(theta: Theta, convention: Convention) -> Course:
    """A theta's course."""
    scalars = convention.scalars([stage.t for stage in theta.stages()])
    # The library stays a little away from an end where an output says nothing.
    reached = [s.t for s in scalars]
    made = theta.for_output(convention.path, convention.output)
    levels, end = convention.levels_of(reached), float(convention.levels_of([1.0])[0])
    frames = _frames(convention, len(reached))
    return Course(made, levels, convention.timestep_at(reached), end, _velocity(scalars), frames)


def on_own_grid(name: str, nfe: int, convention: Convention) -> Course:
    """A published solver on its own grid, or on the one in its name, over the model's path."""
    return learned(solver(name, nfe, convention.path), convention)


def on_levels(name: str, nfe: int, levels: np.ndarray, convention: Convention) -> Course:
    """A published solver from level to level: decreasing, one more than it has intervals; the last may be 0."""
    if name in CLASSICAL:
        return _in_time(name, nfe, convention.time_of_levels(levels), convention)
    if np.isinf(levels[0]):
        return _from_pure_noise(name, nfe, levels, convention)
    path = _variance_preserving(convention, np.log1p(levels**2))
    times = vp_times(path, np.log1p(levels**2))
    if levels[-1] > 0:
        path["end"] = float(times[-1])
    theta = solver(f"{name}:{grid_text(times / times[-1])}", nfe, path)
    output = "v" if convention.is_flow else convention.output
    scalars = velocity_scalars(path, output, [stage.t for stage in theta.stages()])
    reached = np.array([s.sigma / s.alpha for s in scalars])
    timesteps, end = convention.timestep_at(convention.time_of_levels(reached)), float(levels[-1])
    frames = _as_variance_preserving(reached, end, convention) if convention.is_flow else _frames(convention, nfe)
    return Course(theta.for_output(path, output), reached, timesteps, end, _velocity(scalars), frames)


def _in_time(name: str, nfe: int, times: np.ndarray, convention: Convention) -> Course:
    """A classical solver from ``times[0]`` to ``times[-1]``: over r in [0, 1], dx/dr = (times[-1] - times[0]) u."""
    length = float(times[-1] - times[0])
    theta = solver(f"{name}:{grid_text((times - times[0]) / length)}", nfe, "fm-ot")
    scalars = convention.scalars([times[0] + length * stage.t for stage in theta.stages()])
    reached = [s.t for s in scalars]
    frames = [Frame(1.0, length * s.output * convention.sign, length * s.x, 1.0) for s in scalars]
    frames[-1] = replace(frames[-1], following=convention.data_scale)
    levels, end = convention.levels_of(reached), float(convention.levels_of([times[-1]])[0])
    return Course(theta, levels, convention.timestep_at(reached), end, ((0.0, 1.0),) * nfe, tuple(frames))


def _from_pure_noise(name: str, nfe: int, levels: np.ndarray, convention: Convention) -> Course:
    """On the model's own path, whatever end of it the levels have."""
    end = convention.path.get("end", 1.0)
    path = {key: value for key, value in convention.path.items() if key != "end"}
    whole = replace(convention, path=path, times=convention.times * end)
    times = whole.time_of_levels(levels)
    if levels[-1] > 0:
        last = float(times[-1])
        whole = replace(whole, path={**path, "end": last}, times=whole.times / last)
        times = times / last
    return learned(solver(f"{name}:{grid_text(times)}", nfe, whole.path), whole)


def _variance_preserving(convention: Convention, exponents: np.ndarray) -> dict[str, Any]:
    """A path from the first of the levels on, -ln alpha^2 = ``exponents``: part of the model's own where that is one."""
    most, path = float(exponents[0]), convention.path
    if path["name"] != "vp":
        return vp_path(0.0, most, 0.1)
    # T(s0 r) for T(s) = s^2 (beta_max - beta_min) / 2 + s beta_min.
    s0 = 1.0 - float(vp_times(path, most))
    rise, beta_min = s0 * s0 * (path["beta_max"] - path["beta_min"]), s0 * path["beta_min"]
    return {"name": "vp", "beta_min": beta_min, "beta_max": beta_min + rise}


def _as_variance_preserving(levels: np.ndarray, last: float, convention: Convention) -> tuple[Frame, ...]:
    """Of flow matching, x = (1 - q) data + q noise with q = rho / (1 + rho): z = x / |(1 - q, q)| has the level rho.

    With (a, s) = (1 - q, q) / |(1 - q, q)|, v = a noise - s data is (o - (s - a) z) / (a + s) for o = noise - data, and
    for a prediction of noise or data it is (o - s z) / a or (a z - o) / s.
    """
    frames = []
    shares = np.append(levels, last) / (1 + np.append(levels, last))
    norms = np.hypot(1 - shares, shares)
    for k, level in enumerate(levels):
        a, s = 1 / np.hypot(1, level), level / np.hypot(1, level)
        output, x = {"flow": (1 / (a + s), (a - s) / (a + s)), "epsilon": (1 / a, -s / a), "x1": (-1 / s, a / s)}[convention.output]
        frames.append(Frame(1 / norms[k], convention.sign * output, x / norms[k], norms[k + 1]))
    return tuple(frames)


def _frames(convention: Convention, count: int) -> tuple[Frame, ...] | None:
    made = [Frame(1.0, convention.sign, 0.0, 1.0)] * count
    made[-1] = replace(made[-1], following=convention.data_scale)
    return None if all(frame.is_plain for frame in made) else tuple(made)


def _velocity(scalars: list[VelocityScalars]) -> tuple[tuple[float, float], ...]:
    return tuple((s.x, s.output) for s in scalars)


def grid_text(times: np.ndarray) -> str:
    """A grid as a solver's name has it: times from 0 to 1."""
    return ",".join(repr(float(t)) for t in [0.0, *times[1:-1], 1.0])
