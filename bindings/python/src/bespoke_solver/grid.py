"""A solver for a model on a device: what all solves of `BespokeScheduler` share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import _native
from .convention import Convention
from .published import Course, evaluations_of_step, on_levels

#: The solver by which a learned one of full rows goes on where it is begun amid its evaluations.
RESTART = "unipc"
#: The one that takes a sample from the middle of a step to the end of it.
_BRIDGE = "ddim"


class Table:
    """A course's scalars, evaluation by evaluation. Immutable."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.theta, self.frames = course.theta, course.frames
        self.nfe = course.theta.nfe
        self.stages = course.theta.stages()
        #: Whether an evaluation needs nothing but its sample.
        self.self_contained = [stage.self_contained for stage in self.stages]

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
    """

    def __init__(
        self, course: Course, convention: Convention, steps: int, device: torch.device, name: str | None = None
    ) -> None:
        self.table = Table(course)
        self._name = name
        #: Evaluations of a step, where a step is a method of its own.
        self._per_step = evaluations_of_step(name) if name else max(self.table.nfe // course.theta.steps, 1)
        self.nfe, self.steps = self.table.nfe, steps
        self.convention = convention
        self.timesteps = torch.tensor(course.timesteps, dtype=torch.float32, device=device)
        # The end is what the last step goes to.
        self.levels = np.append(course.levels, course.end)
        self.sigmas = torch.tensor(_shares(self.levels, convention), dtype=torch.float32, device=device)
        self._restarts: dict[int, Table | None] = {}
        self._first, self._bytes = self.timesteps.data_ptr(), 4 * self.nfe
        self._on_cpu = self.timesteps.is_cpu
        self._values = np.asarray(self.timesteps.tolist())

    def evaluation(self, timestep: Any, due: int | None) -> int:
        """Which evaluation ``timestep`` is: by its place in `timesteps`, where it is an element, else by its value.

        A value in half precision, or a whole one, is the nearest that rounds to it. Of several, the one that is due.
        """
        slack = 1e-6
        if isinstance(timestep, torch.Tensor):
            # An element lies in the memory of all; to read its value would wait for a GPU.
            offset = timestep.data_ptr() - self._first
            if 0 <= offset < self._bytes and timestep.is_cpu is self._on_cpu:
                return offset >> 2
            timestep = timestep.reshape(-1)[0]
            slack = torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
        value = float(timestep)
        whole = 1.0 if value.is_integer() and not np.any(self._values == value) else 0.0
        distances = np.abs(self._values - value)
        found = np.flatnonzero(distances <= max(slack, 1e-6) * np.abs(self._values) + 1e-9)
        if len(found) == 0 and whole:
            found = np.flatnonzero((distances == distances.min()) & (distances < whole))
        if len(found) == 0:
            raise ValueError(f"timestep is {value}, expected one of timesteps: {self.timesteps.tolist()}")
        return due if due is not None and due in found else int(found[np.argmin(distances[found])])

    def restarted(self, k: int) -> Table | None:
        """The table for a solve that begins at evaluation ``k``, which builds on others in this one's.

        Amid a step it is the rest of the step, by one formula of first order; else the levels that remain, by the
        published solver itself, which starts with its lower orders. None: the sample stays as it is.
        """
        if k not in self._restarts:
            self._restarts[k] = self._make_restart(k)
        return self._restarts[k]

    def bridged(self, k: int) -> int:
        """The evaluation at which the solve of `restarted` ends: the start of the next step, or the end."""
        if k % self._per_step == 0:
            return self.nfe
        return min(k + self._per_step - k % self._per_step, self.nfe)

    def _make_restart(self, k: int) -> Table | None:
        end = self.bridged(k)
        if k % self._per_step:
            levels = self.levels[[k, end]]
            return Table(on_levels(_BRIDGE, 1, levels, self.convention)) if levels[1] < levels[0] else None
        levels = np.append(self.levels[k : self.nfe : self._per_step], self.levels[-1])
        if not np.all(np.diff(levels) < 0):
            raise _native.BespokeError(
                f"evaluation {k} builds on the ones before it, and a solver whose noise levels do not fall cannot begin"
                " there: begin at the first, or use a theta of family rk1 or rk2 or a published solver",
                "BESPOKE_ERROR_STATE",
            )
        return Table(on_levels(self._name or RESTART, self.nfe - k, levels, self.convention))


def _shares(levels: np.ndarray, convention: Convention) -> np.ndarray:
    """The share of noise in a sample of these levels."""
    with np.errstate(divide="ignore"):
        over = 1 / levels
    return 1 / (1 + over) if convention.is_flow else 1 / np.hypot(1, over)
