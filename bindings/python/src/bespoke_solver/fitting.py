"""A learned solver for the model of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .field import TorchField
from .training import Observer, train

if TYPE_CHECKING:
    from .scheduler import BespokeScheduler


def field_of(pipeline: Any, shape: Sequence[int] | None = None, **options: Any) -> TorchField:
    """The velocity field of a pipeline's transformer or UNet, trained as the pipeline's scheduler says.

    Args:
        pipeline: With ``transformer`` or ``unet``, and ``scheduler``.
        shape: Of one sample; by default as the model's configuration says, ``(in_channels, size, size)``.
        options: Of `TorchField`: ``conditions``, ``null``, ``guidance_scale``, ``autograd``, ``max_batch``, ... .
    """
    model = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    if model is None:
        raise ValueError(f"pipeline is {type(pipeline).__name__}, expected one with a transformer or a unet")
    return TorchField(model, pipeline.scheduler.config, shape or _shape_of(model.config), **options)


def _shape_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    size = config.get("sample_size")
    if size is None or config.get("in_channels") is None:
        raise ValueError("shape is None, expected that of one sample: the model's configuration does not say it")
    return (config["in_channels"], *([size, size] if isinstance(size, int) else size))


def fit(
    cls: type[BespokeScheduler],
    pipeline: Any,
    *,
    shape: Sequence[int] | None = None,
    conditions: Mapping[str, torch.Tensor] | None = None,
    null: Mapping[str, torch.Tensor] | None = None,
    guidance_scale: float = 1.0,
    autograd: bool = True,
    max_batch: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    progress: bool | Observer = True,
    **options: Any,
) -> BespokeScheduler:
    """Learns a solver for the model of ``pipeline``, and gives a scheduler with it.

        pipeline.scheduler = BespokeScheduler.fit(pipeline, family="rk2", steps=5)

    The pipeline is left as it is. Arguments as in `TorchField` and `train`: ``conditions`` and ``null`` are what its
    model is given beside state and timestep, ``guidance_scale`` what it will be used with, and the rest keys of a
    training configuration, ``family``, ``steps``, ``iterations``, ``pool``, ``validation``, ``seed``, ... .
    """
    model_options = {
        "conditions": conditions,
        "null": null,
        "guidance_scale": guidance_scale,
        "autograd": autograd,
        "max_batch": max_batch,
        "data_range": data_range,
    }
    theta = train(field_of(pipeline, shape, **model_options), progress=progress, **options)
    return cls.from_config(pipeline.scheduler.config, theta=theta, solver=None)
