"""A theta from any of its evaluations, and from any noise level, on.

All is done on one straight path: z = x / (alpha + sigma) is q data + (1 - q) noise for q = alpha / (alpha + sigma), and
its velocity dz/dq is w = data - noise. There a theta is a table, z_(i+1) = a_i z_0 + sum_j b_ij w_j over j = 0 ... i. A
solve that begins at evaluation k has no w_j of before: the straight line through its sample stands for them, w_j = w_k.
Where the line begins, z_0, can be told in two ways: where the path says, z_k - (q_k - q_0) w_k, or where the table has
it come from. At the beginning of a step the second is the theta itself; elsewhere the one is taken that solves better
for normal data of several widths, whose paths are known. What remains, q_k to the end, is stretched to begin at the
level asked for.
"""

from __future__ import annotations

import numpy as np

from .convention import Convention
from .errors import BespokeError
from .published import Course, Frame
from .theta import STATE, Combination, Theta

#: Below this part of z_0 in a point, a table does not say where a line through that point comes from.
_LEAST = 0.1
#: Standard deviations of the data by which tables are compared.
_WIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8)


def share_of_data(levels: np.ndarray) -> np.ndarray:
    """q of noise levels rho = sigma / alpha, 0 of an infinite one."""
    return 1 / (1 + np.asarray(levels, np.float64))


def stretched(levels: np.ndarray, level: float) -> np.ndarray:
    """Levels that begin at ``level`` and end where they did, each at the same part of the way in q.

    Raises:
        BespokeError: ``level`` is not above the last of them.
    """
    q, first = share_of_data(levels), float(share_of_data(np.array(level)))
    if not first < q[-1]:
        message = f"a solve is to begin at noise level {level:g}, expected one above {levels[-1]:g}, where it ends"
        raise BespokeError(message, "BESPOKE_ERROR_STATE")
    made = first + (q - q[0]) * (q[-1] - first) / (q[-1] - q[0])
    with np.errstate(divide="ignore"):
        # An evaluation may lie before the one that it follows, but not before all noise.
        over = np.append(1 / np.clip(made[:-1], 0.0, 1.0) - 1, levels[-1])
    over[0] = level
    return over


def rest(course: Course, convention: Convention, k: int, level: float) -> Course:
    """The evaluations of a theta's course from ``k`` on, from noise level ``level``."""
    old = np.append(course.levels[k:], course.end)
    levels = stretched(old, level)
    start, rows = _best(_begun(*_rows(course, convention), share_of_data(course.levels), k), course, k, old, levels)
    count, length = len(start), float(np.diff(share_of_data(levels)[[0, -1]])[0])
    theta = Theta.parse({
        "format": "bespoke-theta", "version": 1, "family": "ns", "steps": count,
        # The levels say where evaluations are; these only have to be times.
        "t": [i / count for i in range(count)], "a": start.tolist(),
        "b": [(row[: i + 1] / length).tolist() for i, row in enumerate(rows)],
    })  # fmt: skip
    timesteps = convention.timestep_at(convention.time_of_levels(levels[:-1]))
    frames = _frames(convention, levels, length)
    return Course(theta, levels[:-1], timesteps, course.end, ((0.0, 1.0),) * count, frames)


#: a ``[n]`` and b ``[n, n]`` of a table of n evaluations.
Rows = tuple[np.ndarray, np.ndarray]


def _begun(starts: np.ndarray, velocities: np.ndarray, q: np.ndarray, k: int) -> list[Rows]:
    """The tables from evaluation ``k`` on, over the sample and the velocities from there.

    By the line that the table has, if it has one, and by that of the path.
    """
    if k == 0:
        return [(starts, velocities)]
    before = velocities[k - 1, :k].sum()
    lines = [(1.0, q[k] - q[0])]
    if abs(starts[k - 1]) > _LEAST:
        lines.insert(0, (1 / starts[k - 1], before / starts[k - 1]))
    found = []
    for of_sample, of_velocity in lines:
        rows = velocities[k:, k:].copy()
        rows[:, 0] += velocities[k:, :k].sum(1) - starts[k:] * of_velocity
        found.append((starts[k:] * of_sample, rows))
    return found


def _best(found: list[Rows], course: Course, k: int, old: np.ndarray, levels: np.ndarray) -> Rows:
    """That of the tables which solves best on the levels, to which they are stretched."""
    q, before = share_of_data(levels), share_of_data(old)
    ratio = (q[-1] - q[0]) / (before[-1] - before[0])
    scaled = [(start, ratio * rows) for start, rows in found]
    if len(scaled) == 1 or (course.theta.stages()[k].self_contained and np.allclose(old, levels)):
        return scaled[0]
    return min(scaled, key=lambda table: _error(table, q))


def _error(table: Rows, q: np.ndarray) -> float:
    """Of a table on levels ``q``, for normal data, mean 0 and mean 1, begun one deviation away from the mean and in it."""
    errors = []
    for width in _WIDTHS:
        variances = (q * width) ** 2 + (1 - q) ** 2
        slopes = (q * width**2 - (1 - q)) / variances
        away = _solved(table, 1.0, slopes, np.zeros_like(q)) - np.sqrt(variances[-1] / variances[0])
        within = _solved(table, float(q[0]), slopes, 1 - slopes * q) - q[-1]
        errors += [away / width, within]
    error = float(np.sqrt(np.mean(np.square(errors))))
    return error if np.isfinite(error) else np.inf


def _solved(table: Rows, z: float, slopes: np.ndarray, offsets: np.ndarray) -> float:
    """The end of a solve from ``z``, where evaluation i answers slopes_i z_i + offsets_i."""
    start, rows = table
    answers, point = np.zeros(len(start)), z
    for i in range(len(start)):
        answers[i] = slopes[i] * point + offsets[i]
        point = start[i] * z + rows[i, : i + 1] @ answers[: i + 1]
    return float(point)


def _rows(course: Course, convention: Convention) -> Rows:
    """a ``[nfe]`` and b ``[nfe, nfe]`` of the table on the straight path."""
    nfe, stages = course.theta.nfe, course.theta.stages()
    levels = np.append(course.levels, course.end)
    alphas, sigmas = _path(levels, convention)
    basis = np.eye(nfe + 1)
    # x(0), then the velocities: what registers are made of.
    held = {STATE: basis[0] * (alphas[0] + sigmas[0])}
    point, rows = held[STATE], []

    def combined(row: Combination, velocity: np.ndarray) -> np.ndarray:
        terms = zip(row.registers, row.coefficients)
        return row.velocity * velocity + sum(c * held[register] for register, c in terms if register in held)

    for k, stage in enumerate(stages):
        of_x, of_w = _output(convention.output, alphas[k], sigmas[k])
        by_x, by_output = course.velocity[k]
        velocity = (by_x + by_output * of_x) * point + by_output * of_w * basis[k + 1]
        point = combined(stage.next, velocity)
        kept = None if stage.kept is None else (stage.kept.target, combined(stage.kept, velocity))
        held[stage.next.target] = point
        held.update([kept] if kept else [])
        rows.append(point / (alphas[k + 1] + sigmas[k + 1]))
    made = np.array(rows)
    return made[:, 0], made[:, 1:]


def _path(levels: np.ndarray, convention: Convention) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma of the model's path at noise levels."""
    q = share_of_data(levels)
    norms = np.ones_like(q) if convention.is_flow else np.hypot(q, 1 - q)
    return q / norms, (1 - q) / norms


def _output(kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    """(g, h): what the model predicts is g x + h w."""
    norm = alpha + sigma
    return {
        "flow": (0.0, -1.0),
        "epsilon": (1 / norm, -alpha / norm),
        "x1": (1 / norm, sigma / norm),
        "v": ((alpha - sigma) / norm, -(alpha**2 + sigma**2) / norm),
    }[kind]


def _frames(convention: Convention, levels: np.ndarray, length: float) -> tuple[Frame, ...]:
    """From the model's sample and answer to z and ``length`` times w."""
    alphas, sigmas = _path(levels, convention)
    norms, frames = alphas + sigmas, []
    for k in range(len(levels) - 1):
        of_x, of_w = _output(convention.output, alphas[k], sigmas[k])
        following = norms[k + 1] * (convention.data_scale if k == len(levels) - 2 else 1.0)
        frames.append(Frame(1 / norms[k], convention.sign * length / of_w, -length * of_x / of_w, following))
    return tuple(frames)
