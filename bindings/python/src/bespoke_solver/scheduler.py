"""A scheduler for diffusers pipelines."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import logging

from .base import ModelScheduler
from .call import Call
from .configuration import GRID, KEYS, TRAINING, left_out, understand
from .convention import Convention
from .grid import Grid
from .ladder import Ladder
from .prediction import Prediction, predicted
from .published import intervals, learned, on_levels, on_own_grid, takes_levels
from .replaced import begun_level, clocked, levels_of, named
from .solve import HISTORY, Solve
from .theta import Theta

logger = logging.get_logger(__name__)
#: Solvers that are kept made, by number of evaluations, device and times.
_GRIDS = 32


class Rows(list[Solve]):
    """The solves of a batch whose samples are at different evaluations, one a sample. As a batch it is due for none."""

    due, grid = -1, None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class BespokeScheduler(ModelScheduler):
    """Samples with a learned solver, or with a published one, in any diffusers pipeline.

    ``BespokeScheduler.from_config(pipeline.scheduler.config, theta=...)`` takes over how the model was trained, and for
    a published solver the grid as well. Several threads may use one object, each with a pipeline call of its own:
    nothing that a solve changes belongs to the scheduler. What a solver needs of earlier evaluations travels with the
    sample that `step` returned; where a pipeline replaces that by another tensor (a mask, a cast), the calling thread's
    last solve is taken, and goes on from that tensor.

    Args:
        theta: A `Theta`, the path of a theta or ladder file, its content, or a sequence of these (a ladder). Its
            content becomes part of the configuration, so that ``save_pretrained`` writes it along.
        solver: In place of ``theta``, a published solver such as ``dpm++2m`` (``docs/solvers.md``): ``NAME`` on the
            grid of the scheduler that is replaced, ``NAME:GRID`` on one of one's own.
        num_train_timesteps: Timesteps of training; timesteps run from there (noise) to 0 (data).
        prediction_type: ``flow_prediction`` (noise - data, path x_t = t data + (1 - t) noise), or, with betas,
            ``epsilon``, ``v_prediction`` or ``sample``; ``minus_v`` is EDM's.
        beta_start: First beta, where the prediction type has betas, as diffusers' other schedulers.
        beta_end: Last beta.
        beta_schedule: ``linear``, ``scaled_linear``, ``squaredcos_cap_v2`` or ``sigmoid``.
        trained_betas: All betas, in place of these three.
        rescale_betas_zero_snr: Whether the betas were rescaled so that no data is left at the last timestep.
        snr_shift_scale: Divisor of the signal-to-noise ratio, as in CogVideoX.
        noise_path: ``flow``, ``betas``, ``sigmas`` (``sigma_min`` to ``sigma_max``) or ``angle``; by default what the
            prediction type has.
        clock: What a model of ``sigmas`` is given: ``log-sigma`` or ``angle``; of ``flow``, ``data`` for timesteps that
            grow towards the data.
        sigma_min: Least noise level, of ``sigmas``.
        sigma_max: Greatest.
        sigma_data: Standard deviation of its data.
        replaced: Configuration of the scheduler that is replaced, with its ``_class_name``: its grid.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers] + ["FlowMatchEulerDiscreteScheduler"]

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
        rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float | None = None,
        noise_path: str | None = None,
        clock: str | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_data: float | None = None,
        replaced: Mapping[str, Any] | None = None,
    ) -> None:
        if (theta is None) == (solver is None):
            raise ValueError("theta and solver are both given or both missing, expected one of them")
        self._ladder = None if theta is None else Ladder.of(theta)
        trained_betas = None if trained_betas is None else [float(beta) for beta in trained_betas]
        training = {
            "num_train_timesteps": num_train_timesteps,
            "prediction_type": prediction_type,
            "beta_start": beta_start,
            "beta_end": beta_end,
            "beta_schedule": beta_schedule,
            "trained_betas": trained_betas,
            "rescale_betas_zero_snr": rescale_betas_zero_snr,
            "snr_shift_scale": snr_shift_scale,
            "noise_path": noise_path,
            "clock": clock,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "sigma_data": sigma_data,
        }
        documents = None if self._ladder is None else [rung.document for rung in self._ladder.rungs]
        self._describe(training, replaced, theta=documents, solver=solver)
        self._latest: Call | None = None
        self._lock = threading.Lock()
        self._grids: dict[Any, Grid] = {}
        if self._ladder is not None:
            self.set_timesteps()

    @property
    def order(self) -> int:
        """Evaluations of what the pipeline counts as a step: ``len(timesteps) / num_inference_steps``."""
        if getattr(self._local, "chosen", None) is None and self._latest is None:
            return 1
        call = self._chosen()
        return max(call.grid.nfe // call.steps, 1)

    @property
    def timesteps(self) -> torch.Tensor:
        """What the model is given at each evaluation, float32 ``[nfe]``: the calling thread's, see `set_timesteps`.

        Those of the evaluations that are to be made change, in place, when `add_noise` says where a solve begins.
        """
        return self._chosen().timesteps

    @property
    def sigmas(self) -> torch.Tensor:
        """The share of noise at each evaluation, and at the end, float32 ``[nfe + 1]``."""
        return self._chosen().sigmas

    @property
    def num_inference_steps(self) -> int:
        """What the pipeline was told to count."""
        return self._chosen().steps

    @property
    def step_index(self) -> int | None:
        """The evaluation that the calling thread's last sample is due for; None before the first."""
        chosen: Call | None = getattr(self._local, "chosen", None)
        return None if chosen is None else chosen.index

    def _chosen(self) -> Call:
        """The calling thread's, at first like the one chosen last by any."""
        chosen: Call | None = getattr(self._local, "chosen", None)
        if chosen is None:
            if self._latest is None:
                raise ValueError("set_timesteps comes first: a published solver has no number of evaluations of its own")
            chosen = self._local.chosen = self._latest.fresh()
        return chosen

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
            timesteps: Of a published solver, as the replaced scheduler takes them. A theta has times of its own; only
                the number is used of evenly spaced ones, such as some pipelines hand over by themselves.
            sigmas: Likewise; of a theta only their number is used, as pipelines hand over some of their own.
            mu: Shift of a resolution, as the replaced scheduler takes it. A theta has learned its times.
        """
        custom = timesteps if timesteps is not None else sigmas
        if self._ladder is not None and timesteps is not None and not _evenly_spaced(timesteps):
            raise ValueError("timesteps are given, expected none: a theta has learned its times; a published solver takes them")
        if num_inference_steps is None and custom is not None:
            num_inference_steps = len(custom)
        if num_inference_steps is not None and int(num_inference_steps) < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, expected at least 1")
        place = torch.device(device or "cpu")
        both, shift = (_numbers(sigmas), _numbers(timesteps)), None if mu is None else float(mu)
        if self._ladder is not None:
            theta = self._ladder.largest if num_inference_steps is None else self._ladder.of_steps(int(num_inference_steps))
            clock = (*both, shift) if sigmas is not None and timesteps is not None else None
            key: Any = theta.nfe, str(place), clock
            make = functools.partial(self._learned, theta, place, both, shift)
        elif num_inference_steps is None:
            raise ValueError("num_inference_steps is None, expected the number of evaluations")
        else:
            count = int(num_inference_steps)
            key = count, str(place), both, shift
            make = functools.partial(self._published, count, place, both, shift)
        with self._lock:
            if key not in self._grids:
                while len(self._grids) >= _GRIDS:
                    del self._grids[next(iter(self._grids))]
                self._grids[key] = make()
            grid = self._grids[key]
            # Who hands over times of its own counts them, and takes what comes back for as many steps.
            steps = grid.nfe if custom is not None else grid.steps
            asked = grid.steps if num_inference_steps is None else int(num_inference_steps)
            before: Call | None = getattr(self._local, "chosen", None)
            last = None if before is None else before.last
            self._local.chosen = self._latest = Call(grid, steps, asked, (*both, shift), last)
        self._local.begin = None

    def _clocked(self, both: Any, mu: float | None) -> Convention:
        sigmas, timesteps = both
        if sigmas is None or timesteps is None:
            return self._convention
        return clocked(self.config.replaced or self._bare(), self._convention, timesteps, sigmas, mu)

    def _in_use(self) -> Convention:
        chosen = getattr(self._local, "chosen", None) or self._latest
        return self._convention if chosen is None else chosen.grid.convention

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """alpha * data + sigma * noise at timesteps of training, ``[batch]``, whole or not.

        Before the first `step` after `set_timesteps`, one of ``timesteps`` but the first says that a solve begins there,
        as diffusers' own schedulers have it: for images that are gone on from at a ``strength``. The noise level is then
        that at which the scheduler replaced begins after as many of as many steps, and what remains of ``timesteps``
        leads from there to the end.
        """
        return super().add_noise(original_samples, noise, self._begun(timesteps))

    def _begun(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Has a solve begin, if one begins at ``timesteps``; these, or what they are then."""
        index = self.step_index
        if self.config.replaced is None or (self._latest is None and getattr(self._local, "chosen", None) is None):
            return timesteps
        call = self._chosen()
        if index is not None and index < call.grid.nfe:
            return timesteps  # amid a solve, as where a mask is kept
        k = call.beginning(timesteps, self.begin_index)
        if k is None:
            return timesteps
        convention = call.grid.convention
        level = begun_level(self.config.replaced, convention, call.asked, k * call.asked // call.grid.nfe, *call.times)
        value = call.begin_at(k, min(level, float(convention.levels_of([0.0])[0])))
        return torch.full(timesteps.shape, value, dtype=torch.float64)

    def _learned(self, theta: Theta, device: torch.device, both: Any, mu: float | None) -> Grid:
        convention = self._clocked(both, mu)
        return Grid(learned(theta, convention), convention, theta.steps, device)

    def _published(self, count: int, device: torch.device, own: Any, mu: float | None) -> Grid:
        """The published solver of ``count`` evaluations, on the levels of the scheduler replaced or on a grid of its own."""
        convention = self._clocked(own, mu)
        name, replaced = self.config.solver, self.config.replaced
        sigmas, timesteps = own
        base = name.partition(":")[0]
        steps = intervals(base, count)
        if takes_levels(name, convention) and steps is not None and (replaced or sigmas or timesteps):
            levels = levels_of(replaced or self._bare(), convention, steps, sigmas, timesteps, mu)
            course = on_levels(name, count, levels, convention)
        elif sigmas or timesteps:
            raise ValueError(f"{'sigmas' if sigmas else 'timesteps'} are given, expected none: {name} has a grid of its own")
        else:
            course = on_own_grid(name, count, convention)
        return Grid(course, convention, count, device, base)

    def _bare(self) -> dict[str, Any]:
        """The plainest of diffusers' schedulers for the model, where none was replaced."""
        if self._convention.is_flow:
            inverted = {"invert_sigmas": True} if self._training["clock"] == "data" else {}
            steps = self._training["num_train_timesteps"]
            return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": steps, **inverted}
        if self._training["noise_path"] not in (None, "betas"):
            raise ValueError("sigmas or timesteps are given, expected none: no scheduler was replaced that could read them")
        keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
        return {"_class_name": "EulerDiscreteScheduler", **{key: self._training[key] for key in keys}}

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        per_token_timesteps: torch.Tensor | None = None,
    ) -> Prediction | tuple[torch.Tensor]:
        """From the model's output at ``timestep`` and ``sample`` to the sample at the next timestep.

        The solve goes on from ``sample`` whatever was done to it since it was answered. One that begins at a later
        timestep than the first is a solve of its own from there.

        Args:
            model_output: ``[batch, ...]``, of the sample's shape; twice its channels where the model learned a
                variance, which is not used.
            timestep: An element of ``timesteps``, or its value. Where two evaluations have the same time, an element
                tells them apart; a plain value means the one that the sample is due for. ``[batch]`` of different
                ones: one for each sample.
            sample: ``[batch, ...]``.
            generator: Not used: solvers are deterministic.
            return_dict: A `Prediction`, or a tuple.
            eta: 0, as pipelines of DDIM hand it over.
            use_clipped_model_output: Likewise false.
            per_token_timesteps: None: parts of one sample at different times are more than one solve.

        Raises:
            ValueError: ``timestep`` is none of ``timesteps``.
            BespokeError: The evaluation builds on earlier ones that were not made, or the output is not finite.
        """
        if eta or use_clipped_model_output:
            name, value = ("eta", eta) if eta else ("use_clipped_model_output", use_clipped_model_output)
            raise ValueError(f"{name} is {value}, expected {0.0 if eta else False}: solvers are deterministic, and linear in the output")
        if per_token_timesteps is not None:
            raise ValueError("per_token_timesteps are given, expected none: parts of one sample at different times are more than one solve")
        try:
            call = self._local.chosen
        except AttributeError:
            call = self._chosen()
        # Taken away: what comes of this sample is the only one that continues its solve.
        solve = sample.__dict__.pop(HISTORY, None)
        k = call.place(timestep)
        if k is None:
            if isinstance(timestep, torch.Tensor) and timestep.numel() > 1 and _differ(timestep):
                rows = self._rows(call, model_output, timestep, sample, solve)
                return rows if return_dict else (rows.prev_sample,)
            k = call.evaluation(timestep, solve)
        grid = call.tail if k >= call.begin else call.grid_of(k)
        own = k - grid.first
        if solve is None or solve.due != own or solve.grid is not grid:
            solve = self._solve(call, grid, own)
        following = sample
        if solve is not None:
            following = solve.advance(own, model_output, sample)
            call.last = solve
            if solve.due < solve.stop:
                setattr(following, HISTORY, solve)
        call.index = k + 1
        if not return_dict:
            return (following,)
        return Prediction(following, functools.partial(predicted, grid, own, model_output, sample))

    @staticmethod
    def _solve(call: Call, grid: Grid, k: int) -> Solve | None:
        """For a sample that carries no solve: at the start of a step an idle one, else this thread's last, or a restart.

        None: nothing is left to be done until a later evaluation.
        """
        last: Solve | None = call.last
        if last is not None and last.grid is grid and last.first < last.due < last.stop:
            if last.due == k and not call.several:
                return last
            if last.due == k and not grid.table.self_contained[k]:
                raise ValueError(
                    f"sample at evaluation {k} is not the tensor that step answered, and another solve of this thread was begun"
                    " before that one was done: it may go on from either; keep the tensors, or take a scheduler for each"
                )
            call.several = True
        if grid.table.self_contained[k]:
            if last is not None and last.grid is grid and last.due == last.stop and last.table is grid.table:
                return last
            return Solve(grid, grid.table)
        table = grid.restarted(k)
        return None if table is None else Solve(grid, table, k, grid.bridged(k))

    def _rows(
        self, call: Call, output: torch.Tensor, timesteps: torch.Tensor, sample: torch.Tensor, solves: Any
    ) -> Prediction:
        """Samples at evaluations of their own, one by one."""
        if timesteps.numel() != len(sample):
            raise ValueError(
                f"timestep has shape {tuple(timesteps.shape)} and different values, expected one for each of"
                f" {len(sample)} samples: parts of one sample at different times are more than one solve"
            )
        parts: list[Any] = list(solves if type(solves) is Rows else call.rows)
        made: list[Any] = []
        for row, time in enumerate(timesteps.reshape(-1)):
            part = sample[row : row + 1]
            call.last = parts[row] if row < len(parts) else None
            if call.last is not None:
                setattr(part, HISTORY, call.last)
            made.append(self.step(output[row : row + 1], time, part))
            parts[row : row + 1] = [call.last]
        call.last, call.rows = None, parts
        following = torch.cat([each.prev_sample for each in made])
        setattr(following, HISTORY, Rows(parts))
        return Prediction(following, lambda: torch.cat([each.pred_original_sample for each in made]))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Notes it for `begin_index`: which evaluation it is follows from the timestep.

        Raises:
            ValueError: It lies amid a step. Pipelines with ``denoising_start`` count so, one evaluation too early where
                the sample they have is at the start of a step, and do not say whether it is.
        """
        if begin_index % self.order:
            raise ValueError(
                f"begin_index is {begin_index}, expected a multiple of {self.order}, the evaluations of a step of this"
                " theta: with denoising_start take an rk1 or ns theta, or a published solver"
            )
        super().set_begin_index(begin_index)

    def index_for_timestep(self, timestep: float | torch.Tensor, schedule_timesteps: Any = None) -> int:
        """Which evaluation ``timestep`` is."""
        return self._chosen().evaluation(timestep, None)

    def __deepcopy__(self, memo: Any) -> BespokeScheduler:
        made = type(self).from_config(self.config)
        if self._latest is not None:
            made._local.chosen = made._latest = self._chosen().copy()
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), dict(self.config))

    @classmethod
    def from_config(cls, config: Any, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Takes over how a model was trained, and for published solvers the grid, from any scheduler's configuration.

        Args:
            config: Of one of diffusers' schedulers, or such a scheduler, or of this one, whose solver is replaced by the one given.
            return_unused_kwargs: Whether to answer them as well: there are none.
            kwargs: Of the constructor.

        Raises:
            ValueError: What the configuration asks for cannot be honoured; it is named (``README.md`` has the table).
        """
        if not isinstance(config, (Mapping, ConfigMixin)):
            raise ValueError(f"config is {type(config).__name__}, expected a scheduler's configuration")
        config = named(config)
        name = config["_class_name"]
        ours = name == cls.__name__ or "replaced" in config
        made: dict[str, Any] = understand(config)
        if ours:
            made |= {key: config.get(key) for key in ("theta", "solver", "replaced")}
        elif name is not None:
            kept = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
            made["replaced"] = kept
            for key in left_out(config):
                logger.warning(f"{name}'s {key} is on, and is not done by BespokeScheduler: it is not linear in the output")
        if kwargs.get("theta") is not None or kwargs.get("solver") is not None:
            made |= {"theta": None, "solver": None}
        if name is None and not ours and ":" not in (kwargs.get("solver") or ":"):
            unread = sorted(key for key in config if KEYS.get(key) == GRID)
            if unread:
                raise ValueError(
                    f"config has {unread[0]} and does not say which scheduler it is of, as one made by another class's"
                    " from_config does not: give the scheduler itself, whose grid is taken over, or NAME:GRID"
                )
        unknown = sorted(set(kwargs) - set(TRAINING) - {"theta", "solver", "replaced"})
        if unknown and not return_unused_kwargs:
            raise TypeError(f"from_config got {unknown[0]}, expected one of theta, solver, {', '.join(TRAINING)}")
        unused = {key: kwargs.pop(key) for key in unknown}
        scheduler = cls(**{**made, **kwargs})
        return (scheduler, unused) if return_unused_kwargs else scheduler

    @classmethod
    def fit(cls, pipeline: Any, **options: Any) -> BespokeScheduler:
        """Learns a solver for what a pipeline runs; see `bespoke_solver.fitting.fit` for the options."""
        from .fitting import fit

        return cls.from_config(pipeline.scheduler, theta=fit(pipeline, **options))


# diffusers names a class by its module, and asks for `import bespoke_solver` where that was not imported yet.
BespokeScheduler.__module__ = __package__


def _revive(cls: type[BespokeScheduler], config: dict[str, Any]) -> BespokeScheduler:
    return cls.from_config(config)


def _numbers(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    return tuple(float(value) for value in np.asarray(values).reshape(-1))


def _evenly_spaced(timesteps: Any) -> bool:
    """Whether they are, but for rounding to whole numbers."""
    values = np.asarray(_numbers(timesteps))
    return len(values) < 3 or float(np.ptp(np.diff(values))) <= 1.0 + 1e-6


def _differ(timesteps: torch.Tensor) -> bool:
    flat = timesteps.reshape(-1)
    # An expanded element is one number.
    if all(stride == 0 or size == 1 for stride, size in zip(timesteps.stride(), timesteps.shape)):
        return False
    return bool((flat != flat[0]).any())
