"""The velocity field that a pipeline runs."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .convention import Convention, convention_of
from .probe import Ended, Run
from .replaced import levels_in, named

#: Arguments by which pipelines are told of more than one sample, where no argument has one entry a sample.
_COUNTS = ("batch_size", "num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
#: Runs that are kept for batches of the same conditions.
_RUNS = 6
#: How far field and pipeline may lie apart, as a part of the largest number that the model answers.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class PipelineField:
    """u_t(x) of whatever a pipeline gives its scheduler, in the library's time: a ``field`` for `train`.

    Args:
        pipeline: With a scheduler that a solver can replace.
        prompts: What differs from sample to sample: texts, or a mapping from arguments of the pipeline's call to as many
            entries each (``{"prompt": [...], "negative_prompt": [...]}``, ``{"class_labels": [...]}``).
        calls: The other arguments of its call: sizes, guidance scale, images, ....
        autograd: Whether there is a vector-Jacobian product, where torch gives the pipeline's answers gradients. The
            derivative by time is of differences.
        max_batch: Samples given to the pipeline at once, at most.
        data_range: Least and greatest value of the data, for PSNR.
    """

    library = "torch"

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        calls: Mapping[str, Any] | None = None,
        *,
        autograd: bool = True,
        max_batch: int | None = None,
        data_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self.name = type(pipeline).__name__
        self._pipeline, self._calls = pipeline, dict(calls or {})
        self._accepts = set(inspect.signature(pipeline.__call__).parameters)
        self.convention: Convention = convention_of(named(pipeline.scheduler))
        self._each = _each(prompts, self._accepts, self.name)
        self._check_arguments()
        self.classes = len(next(iter(self._each.values()))) if self._each else 0
        self.data_range, self._max_batch = data_range, max_batch
        self._runs: collections.OrderedDict[tuple[int, ...], Run] = collections.OrderedDict()
        run = self._run((0,))
        self.convention = run.convention
        self.shape = run.shape[1:]
        self.precision = str(run.dtype).removeprefix("torch.").replace("float64", "float32")
        #: Pipelines that take no batch are asked sample by sample.
        self._one_by_one = not self._takes_batches()
        check(self, run)
        if not autograd or not self._has_gradients(run):
            self.vjp = None  # type: ignore[assignment]

    def __call__(self, t: torch.Tensor, x: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity: t ``[batch]`` in [0, 1], x ``[batch, *shape]``, int64 classes ``[batch]``."""
        u = torch.empty_like(x)
        for rows, run, scalars, timestep in self._pieces(t, classes):
            output = run.ask(timestep, x[rows]).float().cpu()
            u[rows] = scalars.x * x[rows] + scalars.output * self.convention.sign * output
        return u

    def vjp(self, t: torch.Tensor, x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For ``rest = (w,)`` or ``(classes, w)``: w^T du/dx, ``[batch, *shape]``, and w . du/dt, ``[batch]``."""
        classes, w = rest if len(rest) == 2 else (None, rest[0])
        by_x = torch.empty_like(x)
        for rows, run, scalars, timestep in self._pieces(t, classes):
            state = x[rows].to(run.device, run.dtype).clone().requires_grad_()
            seed = (scalars.output * self.convention.sign * w[rows]).to(run.device)
            output = run.ask(timestep, state, gradients=True)
            (by_state,) = torch.autograd.grad(output, (state,), seed.to(output.dtype), allow_unused=True)
            by_x[rows] = scalars.x * w[rows] + (0.0 if by_state is None else by_state.float().cpu())
        h = 1e-4  # a tenth of a timestep: embeddings of time turn by a radian within one
        after, before = (t + h).clamp(max=1.0), (t - h).clamp(min=0.0)
        change = self(after, x, *rest[:-1]) - self(before, x, *rest[:-1])
        return by_x, (w * change).flatten(1).sum(1) / (after - before)

    def close(self) -> None:
        """Ends the pipeline's calls."""
        while self._runs:
            self._runs.popitem()[1].end()

    def _pieces(self, t: torch.Tensor, classes: torch.Tensor | None) -> Any:
        """Rows of one time and of at most as many samples as may be, with the run that answers them."""
        times, places = torch.unique(t, return_inverse=True)
        size = 1 if self._one_by_one else self._max_batch or len(t)
        for i, scalars in enumerate(self.convention.scalars(times.tolist())):
            timestep = float(self.convention.timestep_at(scalars.t))
            for rows in torch.split(torch.nonzero(places == i).reshape(-1), size):
                labels = tuple([0] * len(rows) if classes is None else classes[rows].tolist())
                yield rows, self._run(labels), scalars, timestep

    def _run(self, labels: tuple[int, ...]) -> Run:
        """The pipeline's call for samples of these conditions."""
        if labels in self._runs:
            self._runs.move_to_end(labels)
            return self._runs[labels]
        while len(self._runs) >= _RUNS:
            self._runs.popitem(last=False)[1].end()
        run = self._runs[labels] = Run(self._pipeline, self.call(labels), len(labels))
        return run

    def call(self, labels: tuple[int, ...]) -> dict[str, Any]:
        """The arguments of the pipeline's call for a batch."""
        call = dict(self._calls)
        for key, values in self._each.items():
            call[key] = values[list(labels)] if isinstance(values, torch.Tensor) else [values[i] for i in labels]
        if not self._each:
            counted = next((key for key in _COUNTS if key in self._accepts), None)
            if counted is not None:
                call[counted] = len(labels)
        if "output_type" in self._accepts:
            call.setdefault("output_type", "latent")
        if "generator" in self._accepts:
            call.setdefault("generator", torch.Generator().manual_seed(0))
        return call

    def levels(self, steps: int) -> np.ndarray | None:
        """The noise levels of the steps that the pipeline takes with its own scheduler; None where it takes none."""
        pipeline = copy.copy(self._pipeline)
        scheduler = pipeline.scheduler = copy.deepcopy(self._pipeline.scheduler)
        pipeline.set_progress_bar_config(disable=True)

        @functools.wraps(scheduler.step)
        def ended(*arguments: Any, **options: Any) -> Any:
            raise Ended

        scheduler.step = ended
        try:
            pipeline(**{**self.call((0,)), "num_inference_steps": steps})
        except Ended:
            return levels_in(scheduler, self.convention)
        return None

    def _check_arguments(self) -> None:
        for key in ("latents", "num_inference_steps", "timesteps", "sigmas"):
            if self._calls.get(key) is not None:
                raise ValueError(f"calls has {key}, expected none: the solver that is fitted decides it")
        for key in ("callback", "callback_on_step_end"):
            if self._calls.get(key) is not None:
                raise ValueError(
                    f"calls has {key}, expected none: what a callback does goes by the number of the step, and a solver is"
                    " learned for what depends on time and sample alone"
                )
        for key in [*self._each, *self._calls]:
            if key not in self._accepts and "kwargs" not in self._accepts:
                raise ValueError(f"calls has {key}, which {self.name} does not take")

    def _takes_batches(self) -> bool:
        """Whether samples of a batch are answered as each alone."""
        try:
            labels = (0, min(1, max(self.classes - 1, 0)))
            both = self._run(labels)
        except Exception:
            self._runs.pop((0, min(1, max(self.classes - 1, 0))), None)
            return False
        x = _noise((2, *self.shape))
        timestep = float(self.convention.timestep_at(0.5))
        together = both.ask(timestep, x).float().cpu()
        apart = torch.cat([self._run((label,)).ask(timestep, x[i : i + 1]).float().cpu() for i, label in enumerate(labels)])
        return bool((together - apart).abs().max() <= 10 * TOLERANCE[both.dtype] * apart.abs().max())

    def _has_gradients(self, run: Run) -> bool:
        if run.dtype != torch.float32:
            return False  # differences over time would be of rounding
        state = _noise(run.shape).to(run.device, run.dtype).requires_grad_()
        return run.ask(float(self.convention.timestep_at(0.5)), state, gradients=True).requires_grad


def check(field: PipelineField, run: Run, steps: int = 5) -> None:
    """Compares field and pipeline at the steps that the pipeline takes with its own scheduler.

    Raises:
        ValueError: They lie apart; the pipeline, the timestep and the difference are named.
    """
    tolerance = TOLERANCE[run.dtype]
    for timestep, sample, output, level in _recorded(field._pipeline, field.call((0,)), steps):
        _check_level(field, timestep, level)
        found = run.ask(timestep, sample[: run.batch]).detach()
        output = output[: len(found), : found.shape[1]]
        if found.shape != output.shape:
            raise ValueError(f"{field.name} steps {tuple(output.shape)} with its own scheduler, {tuple(found.shape)} with a solver")
        scale = float(output.float().abs().max()) or 1.0
        apart = float((found.float() - output.float()).abs().max()) / scale
        if not apart <= tolerance:
            raise ValueError(
                f"field and {field.name} differ by {apart:.2g} of the largest number at timestep {timestep:g}, expected"
                f" {tolerance:g}: what its model answers depends on more than time and sample (the number of the step,"
                " earlier answers, noise of its own), or on its scheduler's class; fit a TorchField(function, ...) with"
                " function(sample, timestep) the model's answer as the scheduler gets it"
            )


def _check_level(field: PipelineField, timestep: float, level: float | None) -> None:
    """Compares the noise levels that scheduler and convention have at a timestep."""
    if level is None:
        return
    ours = float(field.convention.levels_of(field.convention.time_of([timestep]))[0])
    # As angles; schedulers interpolate between training's levels, and round timesteps, each in its own way.
    apart = abs(np.arctan(level) - np.arctan(ours))
    if not apart <= 5e-3:
        raise ValueError(
            f"{field.name} is at noise level {level:.4g} at timestep {timestep:g}, expected {ours:.4g} by the configuration"
            " of its scheduler: its samples and its model's timesteps go apart; fit a TorchField(function, ...) with"
            " function(sample, timestep) the model's answer, timestep as the configuration has it"
        )


def _level(scheduler: Any, index: int) -> float | None:
    """sigma / alpha of a scheduler at a step, where it says it."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None or len(sigmas) != len(scheduler.timesteps) + 1:
        return None
    return levels_in(scheduler, convention_of(named(scheduler)))[index]


def _recorded(
    pipeline: Any, call: Mapping[str, Any], steps: int
) -> list[tuple[float, torch.Tensor, torch.Tensor, float | None]]:
    """Timestep, model's sample and answer, and noise level, at each step of a call with the pipeline's own scheduler."""
    pipeline = copy.copy(pipeline)
    scheduler = pipeline.scheduler = copy.deepcopy(pipeline.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    found: list[tuple[float, torch.Tensor, torch.Tensor, float | None]] = []
    given: list[torch.Tensor] = []
    step, scale = scheduler.step, getattr(scheduler, "scale_model_input", None)

    if scale is not None:

        @functools.wraps(scale)
        def scaled(sample: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            given[:] = [scale(sample, *arguments, **options)]
            return given[0]

        scheduler.scale_model_input = scaled

    @functools.wraps(step)
    def recorded(*arguments: Any, **options: Any) -> Any:
        of = inspect.signature(step).bind(*arguments, **options).arguments
        sample = given[0][: len(of["sample"])] if given and given[0].shape[1:] == of["sample"].shape[1:] else of["sample"]
        sample, output = sample.detach().clone(), of["model_output"].detach().clone()
        timestep = of["timestep"]
        timestep = timestep.reshape(-1)[0] if isinstance(timestep, torch.Tensor) else timestep
        answer = step(*arguments, **options)
        index = getattr(scheduler, "step_index", None)
        level = None if index is None else _level(scheduler, index - 1)
        found.append((float(timestep), sample, output, level))
        return answer

    scheduler.step = recorded
    pipeline(**{**call, "num_inference_steps": steps})
    return found


def _each(prompts: Any, accepts: set[str], name: str) -> dict[str, Any]:
    if prompts is None:
        return {}
    if not isinstance(prompts, Mapping):
        key = next((key for key in ("prompt", "class_labels") if key in accepts), None)
        if key is None:
            raise ValueError(f"prompts are given, expected a mapping: {name} takes neither prompt nor class_labels")
        prompts = {key: prompts}
    each = {key: values if isinstance(values, torch.Tensor) else list(values) for key, values in prompts.items()}
    lengths = {key: len(values) for key, values in each.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"prompts has {lengths} entries, expected the same number of each, one or more")
    return each


def _noise(shape: Sequence[int]) -> torch.Tensor:
    values = np.random.default_rng(0).standard_normal(tuple(shape)).astype(np.float32)
    return torch.from_numpy(values)
