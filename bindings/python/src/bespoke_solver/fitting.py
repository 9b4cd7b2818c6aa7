"""A learned solver for what a diffusers pipeline runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .field import TorchField
from .pipeline_field import PipelineField
from .replaced import named
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
        options: Keys of a training configuration, ``family``, ``steps``, ``iterations``, ``pool``, ``seed``, ... .

    Raises:
        ValueError: The pipeline cannot be learned from so; it is named, and what to do.
    """
    if field is not None:
        return train(field, progress=progress, **options)
    shared: dict[str, Any] = {"autograd": autograd, "max_batch": max_batch, "data_range": data_range}
    if conditions is not None or shape is not None:
        if prompts is not None or calls is not None:
            raise ValueError("prompts or calls are given beside conditions or shape, expected one kind: a pipeline's call or its model")
        scale = 1.0 if guidance_scale is None else guidance_scale
        bare = field_of(pipeline, shape, conditions=conditions, null=null, guidance_scale=scale, **shared)
        return train(bare, progress=progress, **options)
    calls = dict(calls or {})
    if guidance_scale is not None:
        calls["guidance_scale"] = guidance_scale
    learned_from = PipelineField(pipeline, prompts, calls, **shared)
    try:
        return train(learned_from, progress=progress, **options)
    finally:
        learned_from.close()
