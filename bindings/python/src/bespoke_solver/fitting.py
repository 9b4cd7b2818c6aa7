"""A learned solver for what a diffusers pipeline runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .convention import Convention
from .field import TorchField
from .pipeline_field import PipelineField
from .replaced import levels_of, named
from .starts import count_of, named_start, published_start, starting
from .theta import Theta
from .training import Observer, train


def field_of(pipeline: Any, shape: Sequence[int] | None = None, **options: Any) -> TorchField:
    """The velocity field of a pipeline's transformer or UNet alone, called with sample and timestep.

    Args:
        pipeline: With ``transformer`` or ``unet``, and ``scheduler``.
        shape: Of one sample; by default as the model's configuration says, ``(in_channels, size, size)``.
        options: Of `TorchField`: ``conditions``, ``null``, ``guidance_scale``, ``autograd``, ``max_batch``, ... .
    """
    model = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    if model is None:
        raise ValueError(f"pipeline is {type(pipeline).__name__}, expected one with a transformer or a unet")
    return TorchField(model, named(pipeline.scheduler), shape or _shape_of(model.config), **options)


def _shape_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    size = config.get("sample_size")
    if size is None or config.get("in_channels") is None:
        raise ValueError("shape is None, expected that of one sample: the model's configuration does not say it")
    return (config["in_channels"], *([size, size] if isinstance(size, int) else size))


def fit(
    pipeline: Any,
    *,
    prompts: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    calls: Mapping[str, Any] | None = None,
    field: Any = None,
    shape: Sequence[int] | None = None,
    conditions: Mapping[str, torch.Tensor] | None = None,
    null: Mapping[str, torch.Tensor] | None = None,
    guidance_scale: float | None = None,
    autograd: bool = True,
    max_batch: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    progress: bool | Observer = True,
    **options: Any,
) -> Theta:
    """Learns a solver for what ``pipeline`` runs; `BespokeScheduler.fit` makes a scheduler with it.

        pipeline.scheduler = BespokeScheduler.fit(pipeline, prompts=["a cat", "a dog"], family="rk2", steps=5)

    The function that is learned from is the pipeline's own: its call is run, and asked at each step of training what it
    would give its scheduler. Before training, the answers are compared with a call of the pipeline with the scheduler it
    has. The pipeline is left as it is.

    Args:
        pipeline: Any of diffusers', or one with the usual loop around ``scheduler.step``.
        prompts: What differs from sample to sample: texts, or a mapping from arguments of the pipeline's call to as many
            entries each. Sample i takes entry i modulo their number.
        calls: The other arguments of its call, as it will be called: ``guidance_scale``, ``height``, ``image``, ....
        field: In place of the pipeline's call, a field of one's own, such as ``TorchField(function, ...)``.
        shape: With ``conditions``.
        conditions: For a bare model: keyword arguments of the transformer or UNet, which is then called by itself, see
            `TorchField`.
        null: Likewise.
        guidance_scale: Of the pipeline's call, or of `TorchField`.
        autograd: Whether gradients are asked for, where the pipeline's models have any.
        max_batch: Samples given to the pipeline at once, at most.
        data_range: Least and greatest value of the data, for PSNR.
        progress: See `train`.
        options: Keys of a training configuration, ``family``, ``steps``, ``iterations``, ``pool``, ``seed``, ... . An
            ``ns`` theta whose ``init`` is not given starts from ``regridded`` or from UniPC on the pipeline's
            own grid, whichever is better: it is not worse than that.

    Raises:
        ValueError: The pipeline cannot be learned from so; it is named, and what to do.
    """
    if field is not None:
        return _trained(field, pipeline, progress, options)
    shared: dict[str, Any] = {"autograd": autograd, "max_batch": max_batch, "data_range": data_range}
    if conditions is not None or shape is not None:
        if prompts is not None or calls is not None:
            raise ValueError("prompts or calls are given beside conditions or shape, expected one kind: a pipeline's call or its model")
        scale = 1.0 if guidance_scale is None else guidance_scale
        bare = field_of(pipeline, shape, conditions=conditions, null=null, guidance_scale=scale, **shared)
        return _trained(bare, pipeline, progress, options)
    calls = dict(calls or {})
    if guidance_scale is not None:
        calls["guidance_scale"] = guidance_scale
    learned_from = PipelineField(pipeline, prompts, calls, **shared)
    try:
        return _trained(learned_from, pipeline, progress, options)
    finally:
        learned_from.close()


def _trained(field: Any, pipeline: Any, progress: Any, options: dict[str, Any]) -> Theta:
    """A theta, for ``ns`` one that may start from a published solver on the pipeline's own grid."""
    count, convention, start = count_of(options), getattr(field, "convention", None), None
    if count is not None and convention is not None:
        levels = field.levels(count) if isinstance(field, PipelineField) else _scheduler_levels(pipeline, convention, count)
        start = None if levels is None else published_start(levels, convention, count)
    with starting(options, start) as given:
        theta = train(field, progress=progress, **given)
    return theta if start is None else named_start(theta, given)


def _scheduler_levels(pipeline: Any, convention: Convention, steps: int) -> Any:
    """Where its scheduler steps by itself; None where that takes a resolution's shift, or has no so many levels."""
    scheduler = getattr(pipeline, "scheduler", None)
    if scheduler is None:
        return None
    config = {key: value for key, value in named(scheduler).items() if key == "_class_name" or not key.startswith("_")}
    try:
        return levels_of(config, convention, steps)
    except ValueError:
        return None
