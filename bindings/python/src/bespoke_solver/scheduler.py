"""A scheduler for diffusers pipelines."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput

import torch

from .convention import convention_of
from .grid import HISTORY, Grid, Solve
from .theta import Theta, solver


class BespokeScheduler(SchedulerMixin, ConfigMixin):
    """Samples with a learned solver, or with a published one, in any diffusers pipeline.

    ``BespokeScheduler.from_config(pipeline.scheduler.config, theta=...)`` takes over how the model was trained. Several
    threads may use one object, each with a pipeline call of its own: nothing that a solve changes belongs to the
    scheduler. What a solver needs of earlier evaluations travels with the sample that `step` returned; where a pipeline
    replaces that by another tensor (a mask, a cast), the calling thread's last solve is taken.

    Args:
        theta: A `Theta`, the path of a theta or ladder file, its content, or a sequence of these (a ladder). Its
            content becomes part of the configuration, so that ``save_pretrained`` writes it along.
        solver: In place of ``theta``, a published solver such as ``dpm++2m`` (``docs/solvers.md``).
        num_train_timesteps: Timesteps of training; timesteps run from there (noise) to 0 (data).
        prediction_type: ``flow_prediction`` (noise - data, path x_t = t data + (1 - t) noise), or, with betas,
            ``epsilon``, ``v_prediction`` or ``sample``.
        beta_start: First beta, where the prediction type has betas, as diffusers' other schedulers.
        beta_end: Last beta.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``.
        trained_betas: All betas, in place of these three.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers] + ["FlowMatchEulerDiscreteScheduler"]
    init_noise_sigma = 1.0

    def __init__(
        self,
        theta: Theta | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | None = None,
        solver: str | None = None,
        num_train_timesteps: int = 1000,
        prediction_type: str = "flow_prediction",
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
    ) -> None:
        if (theta is None) == (solver is None):
            raise ValueError("theta and solver are both given or both missing, expected one of them")
        rungs = [] if theta is None else [rung for part in _parts(theta) for rung in _thetas(part)]
        trained_betas = None if trained_betas is None else [float(beta) for beta in trained_betas]
        self.register_to_config(
            theta=[rung.document for rung in rungs] or None,
            solver=solver,
            num_train_timesteps=num_train_timesteps,
            prediction_type=prediction_type,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
        )
        self._rungs = {rung.steps: rung for rung in rungs}
        self._convention = convention_of(
            prediction_type, num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas
        )
        self._local = threading.local()
        self._latest: Grid | None = None
        self._lock = threading.Lock()
        self._grids: dict[tuple[int, str], Grid] = {}
        if rungs:
            self.set_timesteps(rungs[-1].steps)

    @property
    def order(self) -> int:
        """Evaluations of a step: ``len(timesteps) / num_inference_steps``."""
        if not self._rungs:
            return 1
        grid = self._grid()
        return grid.nfe // grid.steps

    @property
    def timesteps(self) -> torch.Tensor:
        """What the model is given at each evaluation, float32 ``[nfe]``: the calling thread's, see `set_timesteps`."""
        return self._grid().timesteps

    @property
    def sigmas(self) -> torch.Tensor:
        """The share of noise at each evaluation, and 0, float32 ``[nfe + 1]``."""
        return self._grid().sigmas

    @property
    def num_inference_steps(self) -> int:
        """Steps of the calling thread's solver."""
        return self._grid().steps

    def _grid(self) -> Grid:
        grid = getattr(self._local, "grid", None) or self._latest
        if grid is None:
            raise ValueError("set_timesteps comes first: a published solver has no number of evaluations of its own")
        return grid

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Chooses the solver, for the calling thread.

        Args:
            num_inference_steps: Steps of a theta, each of ``order`` evaluations (``rk2``: 2); evaluations of a
                published solver. None is the only theta's, or the largest.
            device: Where ``timesteps`` is to live.
            timesteps: Only its length is used, as ``num_inference_steps``: a solver has times of its own.
            sigmas: As ``timesteps``.
            mu: Not used: a shift of the times is for solvers that have none of their own.
        """
        custom = timesteps if timesteps is not None else sigmas
        if num_inference_steps is None and custom is not None:
            num_inference_steps = len(custom)
        if num_inference_steps is None:
            if not self._rungs:
                raise ValueError("num_inference_steps is None, expected the number of evaluations")
            num_inference_steps = max(self._rungs)
        key = int(num_inference_steps), str(torch.device(device or "cpu"))
        with self._lock:
            if key not in self._grids:
                self._grids[key] = Grid(self._theta(key[0]), self._convention, torch.device(key[1]))
            self._local.grid = self._latest = self._grids[key]

    def _theta(self, steps: int) -> Theta:
        if not self._rungs:
            return solver(self.config.solver, steps, self._convention.path)
        if steps not in self._rungs:
            have = ", ".join(f"{rung.steps} ({rung.nfe} evaluations)" for rung in self._rungs.values())
            raise ValueError(f"num_inference_steps is {steps}, expected that of a theta at hand: {have}")
        return self._rungs[steps]

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The sample: models of these kinds are given it as it is."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """From the model's output at ``timestep`` and ``sample`` to the sample at the next timestep.

        Args:
            model_output: ``[batch, ...]``, of the sample's shape.
            timestep: An element of ``timesteps``, or its value. Where two evaluations have the same time, an element
                tells them apart; a plain value means the one that the sample is due for.
            sample: ``[batch, ...]``.
            generator: Not used: solvers are deterministic.
            return_dict: A `SchedulerOutput`, or a tuple.

        Raises:
            ValueError: ``timestep`` is none of ``timesteps``.
            BespokeError: The evaluation builds on earlier ones that were not made, or the output is not finite.
        """
        local = self._local
        try:
            grid = local.grid
        except AttributeError:
            grid = self._grid()
        # Taken away: what comes of this sample is the only one that continues its solve.
        solve = sample.__dict__.pop(HISTORY, None)
        if solve is not None and solve.grid is not grid:
            solve = None
        k = grid.evaluation(timestep, solve)
        if solve is None:
            solve = self._solve(grid, k)
        following = solve.advance(k, model_output, sample)
        local.last = solve
        if k + 1 < grid.nfe:
            setattr(following, HISTORY, solve)
        return SchedulerOutput(following) if return_dict else (following,)

    def _solve(self, grid: Grid, k: int) -> Solve:
        """The history for a sample that carries none: at the start of a step an empty one, else this thread's last."""
        last = getattr(self._local, "last", None)
        if last is not None and last.grid is grid:
            idle, due = last.next == grid.nfe, last.next == k
            if idle if grid.self_contained[k] else due:
                return last
        return Solve(grid)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """alpha * data + sigma * noise at timesteps of training, ``[batch]``, whole or not."""
        times = self._convention.time_of(timesteps.detach().double().cpu().numpy().reshape(-1))
        scalars = self._convention.scalars(times)
        shape = [-1] + [1] * (original_samples.ndim - 1)
        data = original_samples.new_tensor([s.alpha for s in scalars]).reshape(shape)
        share = original_samples.new_tensor([s.sigma for s in scalars]).reshape(shape)
        return data * original_samples + share * noise

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise`, as flow-matching pipelines call it."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep).reshape(-1))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing: which evaluation it is follows from the timestep."""

    def index_for_timestep(self, timestep: float | torch.Tensor, schedule_timesteps: Any = None) -> int:
        """Which evaluation ``timestep`` is."""
        return self._grid().evaluation(timestep, None)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def __deepcopy__(self, memo: Any) -> BespokeScheduler:
        return type(self).from_config(self.config)

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), dict(self.config))

    @classmethod
    def from_config(cls, config: Any, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As diffusers' own; what the other scheduler took by default is taken over, since the model was trained so."""
        if isinstance(config, Mapping):
            config = {key: value for key, value in config.items() if key != "_use_default_values"}
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @classmethod
    def fit(cls, pipeline: Any, **options: Any) -> BespokeScheduler:
        """Learns a solver for a pipeline's model; see `bespoke_solver.fitting.fit` for the options."""
        from .fitting import fit

        return fit(cls, pipeline, **options)


def _revive(cls: type[BespokeScheduler], config: dict[str, Any]) -> BespokeScheduler:
    return cls.from_config(config)


def _parts(theta: Any) -> list[Any]:
    return list(theta) if isinstance(theta, Sequence) and not isinstance(theta, (str, bytes)) else [theta]


def _thetas(part: Any) -> list[Theta]:
    """The thetas of a file, a document or a ladder's document, by increasing nfe."""
    if isinstance(part, Theta):
        return [part]
    if isinstance(part, Mapping):
        rungs = part["rungs"] if part.get("format") == "bespoke-ladder" else [part]
        return [Theta.parse(dict(rung)) for rung in rungs]
    return Theta.load_all(part)
