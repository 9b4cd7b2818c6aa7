"""One thread's call of a pipeline: the grid that it steps through, and where on it the solve begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .grid import Grid
from .solve import Solve

#: Levels whose shares of data lie no further apart are one.
_SAME = 1e-6


class Call:
    """A grid whose timesteps are a thread's own.

    They lie in memory of their own, of which pipelines take slices: where a solve turns out to begin at evaluation
    k, at a level that is not the grid's, those from k on are written anew.

    Args:
        grid: The solver, from its start.
        steps: What the pipeline is told to count.
        asked: The steps that the scheduler replaced would take.
        times: ``sigmas``, ``timesteps`` and ``mu``, as it was given them.
        last: Of the same thread's call before, its `last`, whose memory a new solve may take over where it is done.
    """

    def __init__(
        self, grid: Grid, steps: int, asked: int, times: tuple[Any, Any, float | None], last: Solve | None = None
    ) -> None:
        self.grid, self.steps, self.asked, self.times = grid, steps, asked, times
        #: The solve that was advanced last, and the evaluation that its sample is due for; None before the first.
        self.last = last if last is not None and last.due >= last.stop else None
        self.index: int | None = None
        #: Likewise of a batch whose samples are at evaluations of their own, one a sample.
        self.rows: list[Any] = []
        #: Whether a solve was begun while another was under way: a sample that carries none may then be of either.
        self.several = False
        with torch.inference_mode(False):
            # Whoever writes to them later may not be in that mode.
            self.timesteps, self.sigmas = grid.timesteps.clone(), grid.sigmas.clone()
        #: The evaluation that the solve begins at, and the grid from there on.
        self.begin, self.tail = 0, grid
        self._values = grid.values
        self._first, self._bytes = self.timesteps.data_ptr(), 4 * grid.nfe
        self._on_cpu = self.timesteps.is_cpu

    def fresh(self) -> Call:
        """One of the whole grid, with memory of its own."""
        return Call(self.grid, self.steps, self.asked, self.times)

    def copy(self) -> Call:
        """The same, with memory of its own."""
        made = self.fresh()
        if self.begin:
            made._put(self.begin, self.tail)
        return made

    def grid_of(self, k: int) -> Grid:
        """What evaluation ``k`` belongs to. One before the beginning says that the solve is a whole one."""
        if k < self.begin:
            self._put(0, self.grid)
        return self.tail

    def begin_at(self, k: int, level: float) -> float:
        """Has the solve begin at evaluation ``k`` and noise level ``level``; the timestep of that."""
        own = float(self.grid.levels[k])
        if abs(1 / (1 + level) - 1 / (1 + own)) <= _SAME:
            self._put(0, self.grid)
        else:
            self._put(k, self.grid.tail(k, level))
        return float(self._values[k])

    def _put(self, k: int, tail: Grid) -> None:
        """Makes ``tail`` what there is from evaluation ``k`` on."""
        grid = self.grid
        self.begin, self.tail, self._values = k, tail, grid.values
        self.timesteps.copy_(grid.timesteps)
        self.sigmas.copy_(grid.sigmas)
        if k:
            self.timesteps[k:] = tail.timesteps
            self.sigmas[k:] = tail.sigmas
            self._values = np.append(grid.values[:k], tail.values)

    def place(self, timestep: Any) -> int | None:
        """The evaluation whose element of `timesteps` this is; None for one that lies elsewhere.

        To read an element's value would wait for a GPU: it is told by where it lies in the memory of all.
        """
        if not isinstance(timestep, torch.Tensor):
            return None
        offset = timestep.data_ptr() - self._first
        if 0 <= offset < self._bytes and timestep.is_cpu is self._on_cpu and timestep.numel() == 1:
            return offset >> 2
        return None

    def evaluation(self, timestep: Any, solve: Solve | None = None) -> int:
        """Which evaluation ``timestep`` is: by its place in `timesteps`, where it is an element, else by its value.

        A value in half precision is the nearest that rounds to it, a whole one the nearest that it may have been cut
        from. Of several, the one that ``solve`` is due for, or the thread's last.
        """
        slack = 1e-6
        if isinstance(timestep, torch.Tensor):
            timestep = timestep[(0,) * timestep.dim()]
            k = self.place(timestep)
            if k is not None:
                return k
            slack = torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
        value = float(timestep)
        distances = np.abs(self._values - value)
        found = _equal(self._values, value, slack)
        solve = self.last if solve is None or solve.grid is None else solve
        due = -1 if solve is None else solve.due + solve.grid.first
        if due in found or (value.is_integer() and 0 <= due < len(distances) and distances[due] < 1.0):
            return due
        if len(found) == 0 and value.is_integer():
            found = np.flatnonzero((distances == distances.min()) & (distances < 1.0))
        if len(found) == 0:
            raise ValueError(f"timestep is {value}, expected one of timesteps: {self.timesteps.tolist()}")
        return int(found[np.argmin(distances[found])])

    def beginning(self, timesteps: torch.Tensor, begin_index: int | None) -> int | None:
        """The evaluation, not the first, that a solve begins at whose noise is added at ``timesteps``, all equal.

        None: they say nothing of the kind, as those of training.
        """
        flat = timesteps.reshape(-1)
        values = flat.double().cpu().numpy()
        if not len(values) or not np.all(values == values[0]):
            return None
        slack = torch.finfo(flat.dtype).eps if flat.is_floating_point() else 0.0
        found = _equal(self.grid.values, float(values[0]), slack)
        if begin_index is not None:
            found = found[found == begin_index]
        # Where a step ends another begins, at the same time.
        starts = found[found % self.grid.per_step == 0]
        return next((int(k) for k in (*starts, *found) if k), None)


def _equal(values: np.ndarray, value: float, slack: float) -> np.ndarray:
    return np.flatnonzero(np.abs(values - value) <= max(slack, 1e-6) * np.abs(values) + 1e-9)
