"""A solver for a model on a device: what all solves of `BespokeScheduler` share."""

from __future__ import annotations

import numpy as np
import torch

from .convention import Convention
from .published import Course, evaluations_of_step, on_levels
from .rest import rest, share_of_data, stretched

#: The solver that goes on where evaluations make no whole number of steps.
_SINGLE = "unipc"
#: The one that takes a sample from the middle of a step to the end of it.
_BRIDGE = "ddim"
#: Tails that are kept made.
_TAILS = 32


class Table:
    """A course's scalars, evaluation by evaluation. Immutable."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.theta, self.frames = course.theta, course.frames
        self.nfe = course.theta.nfe
        self.stages = course.theta.stages()
        #: Whether an evaluation needs nothing but its sample.
        self.self_contained = [stage.self_contained for stage in self.stages]
        #: Whether the next one needs more than what an evaluation answers.
        self.carried = [not alone for alone in self.self_contained[1:]] + [False]

    def velocity(self, k: int) -> tuple[float, float]:
        """(c, d): the velocity of evaluation ``k`` is c times the state plus d times the output, both in its frame."""
        return self.course.velocity[k]


class Grid:
    """A table with the timesteps and noise levels of its evaluations on a device, and its restarts. Immutable.

    Args:
        course: The solver.
        convention: Of the model.
        steps: What a pipeline counts: ``len(timesteps) / steps`` is the order.
        device: Of ``timesteps``.
        name: Of a published solver, which begins by itself where it is begun amid its evaluations.
        whole: Of what remains of a theta: that theta's course.
        first: The evaluation of the whole solve that is this one's first.
    """

    def __init__(
        self, course: Course, convention: Convention, steps: int, device: torch.device, name: str | None = None,
        whole: Course | None = None, first: int = 0,
    ) -> None:  # fmt: skip
        self.table = Table(course)
        self._name, self._whole, self.first = name, whole or course, first
        #: Evaluations of a step, where a step is a method of its own.
        self.per_step = evaluations_of_step(name) if name else max(self.table.nfe // course.theta.steps, 1)
        self.nfe, self.steps = self.table.nfe, steps
        self.convention = convention
        self.timesteps = torch.tensor(course.timesteps, dtype=torch.float32, device=device)
        # The end is what the last step goes to.
        self.levels = np.append(course.levels, course.end)
        self.sigmas = torch.tensor(_shares(self.levels, convention), dtype=torch.float32, device=device)
        #: The timesteps as they are told, in double precision.
        self.values = np.asarray(self.timesteps.tolist())
        self._restarts: dict[int, Table | None] = {}
        self._tails: dict[tuple[int, float], Grid] = {}

    def restarted(self, k: int) -> Table | None:
        """The table for a solve that begins at evaluation ``k``, which builds on others in this one's.

        Of a theta it is what remains (`rest`). Of a published solver, amid a step, it is the rest of the step by one
        formula of first order; else the levels that remain, by the solver itself, which starts with its lower orders.
        None: the sample stays as it is.
        """
        if k not in self._restarts:
            self._restarts[k] = self._make_restart(k)
        return self._restarts[k]

    def bridged(self, k: int) -> int:
        """The evaluation at which the solve of `restarted` ends: the start of the next step, or the end."""
        if self._name is None or k % self.per_step == 0:
            return self.nfe
        return min(k + self.per_step - k % self.per_step, self.nfe)

    def _make_restart(self, k: int) -> Table | None:
        if self._name is None:
            return Table(rest(self._whole, self.convention, self.first + k, float(self.levels[k])))
        if k % self.per_step:
            levels = self.levels[[k, self.bridged(k)]]
            return Table(on_levels(_BRIDGE, 1, levels, self.convention)) if levels[1] < levels[0] else None
        return Table(on_levels(self._name, self.nfe - k, self._remaining(k), self.convention))

    def _remaining(self, k: int) -> np.ndarray:
        """The levels at which steps begin from evaluation ``k`` on, and the end."""
        return np.append(self.levels[k : self.nfe : self.per_step], self.levels[-1])

    def tail(self, k: int, level: float) -> Grid:
        """The evaluations from ``k`` on, from noise level ``level`` in place of their own: what remains, stretched."""
        if (k, level) not in self._tails:
            while len(self._tails) >= _TAILS:
                del self._tails[next(iter(self._tails))]
            self._tails[k, level] = self._make_tail(k, level)
        return self._tails[k, level]

    def _make_tail(self, k: int, level: float) -> Grid:
        device, count = self.timesteps.device, self.nfe - k
        if self._name is None:
            course = rest(self._whole, self.convention, self.first + k, level)
            return Grid(course, self.convention, count, device, whole=self._whole, first=self.first + k)
        name, levels = self._name, self._remaining(k)
        if k % self.per_step:
            # Evaluations that make no whole number of steps are one step each.
            begins = [*range(0, self.nfe, self.per_step), self.nfe]
            shares = np.interp(range(k, self.nfe + 1), begins, share_of_data(self._remaining(0)))
            with np.errstate(divide="ignore"):
                name, levels = _SINGLE, 1 / shares - 1
        course = on_levels(name, count, stretched(levels, level), self.convention)
        return Grid(course, self.convention, count, device, name, first=self.first + k)


def _shares(levels: np.ndarray, convention: Convention) -> np.ndarray:
    """The share of noise in a sample of these levels."""
    with np.errstate(divide="ignore"):
        over = 1 / levels
    return 1 / (1 + over) if convention.is_flow else 1 / np.hypot(1, over)
