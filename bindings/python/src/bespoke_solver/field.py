"""The velocity field of a torch module, for training."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .convention import Convention, convention_of
from .exporting import write_model
from .theta import VelocityScalars


class TorchField:
    """u_t(x) of a module, in the library's time: a ``field`` for `train`, with a vector-Jacobian product by autograd.

    Args:
        module: A diffusers UNet or transformer, any module called ``module(x, timestep, **conditions)``, or a function
            called so. timestep is float32 ``[batch]``. What has more channels than x is cut to as many.
        scheduler: The configuration of the scheduler the module was trained with (``pipeline.scheduler.config``), or a
            mapping with as many of its keys as differ from the defaults.
        shape: Of one sample.
        conditions: Keyword arguments of the module, each ``[classes, ...]``: class c is given row c. For a model of
            classes ``{"class_labels": torch.arange(10)}``; for one of texts the embeddings of as many prompts.
        null: The same without the first dimension: what stands for no condition. Guidance needs it.
        guidance_scale: u = u_uncond + s (u_cond - u_uncond); 1 is off.
        autograd: Whether there is a vector-Jacobian product; without one training takes forward passes alone.
        max_batch: Samples given to the module at once, at most, counting guidance as two.
        data_range: Least and greatest value of the data, for PSNR.
        name: What the field is called in a theta's notes.
    """

    library = "torch"

    def __init__(
        self,
        module: torch.nn.Module | Callable[..., Any],
        scheduler: Mapping[str, Any],
        shape: Sequence[int],
        *,
        conditions: Mapping[str, torch.Tensor] | None = None,
        null: Mapping[str, torch.Tensor] | None = None,
        guidance_scale: float = 1.0,
        autograd: bool = True,
        max_batch: int | None = None,
        data_range: tuple[float, float] = (-1.0, 1.0),
        name: str | None = None,
    ) -> None:
        self.convention: Convention = convention_of(scheduler)
        self.shape = tuple(int(size) for size in shape)
        self.conditions, self.null = dict(conditions or {}), dict(null or {})
        _check("conditions", self.conditions)
        _check("null", self.null)
        self.classes = len(next(iter(self.conditions.values()))) if self.conditions else 0
        if guidance_scale != 1.0 and not self.null:
            raise ValueError(f"guidance_scale is {guidance_scale}, expected 1: there is no null to guide from")
        self.guidance_scale, self.max_batch = guidance_scale, max_batch
        self.data_range, self.name = data_range, name or type(module).__name__
        self._module = module
        parameter = next(module.parameters(), None) if isinstance(module, torch.nn.Module) else None
        self._device = parameter.device if parameter is not None else torch.device("cpu")
        self._dtype = parameter.dtype if parameter is not None else torch.float32
        self.precision = str(self._dtype).removeprefix("torch.").replace("float64", "float32")
        self._placed: dict[Any, dict[str, torch.Tensor]] = {}
        self._call = _calling(module)
        if not autograd:
            self.vjp = None  # type: ignore[assignment]

    def __call__(self, t: torch.Tensor, x: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """The velocity: t ``[batch]`` in [0, 1], x ``[batch, *shape]``, int64 classes ``[batch]``."""
        scalars = self._scalars(t)
        with torch.no_grad():
            parts = [self._velocity(x, classes, scalars, rows) for rows in self._pieces(len(x))]
        return torch.cat(parts)

    def vjp(self, t: torch.Tensor, x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For ``rest = (w,)`` or ``(classes, w)``: w^T du/dx, ``[batch, *shape]``, and w . du/dt, ``[batch]``."""
        classes, w = rest if len(rest) == 2 else (None, rest[0])
        scalars = self._scalars(t)
        parts = [self._pull_back(x, classes, w, scalars, rows) for rows in self._pieces(len(x))]
        return torch.cat([by_x for by_x, _ in parts]), torch.cat([by_t for _, by_t in parts])

    def export(self, path: str | os.PathLike[str], runtime: str = "torchscript") -> Path:
        """Writes a model card at ``path``, NAME.json, and the module beside it: the program ``bespoke`` runs the same.

        What was written is checked against the module, on batches of other sizes than it was written with, before it
        takes its place. The module is to be on the CPU, in float32.

        Args:
            path: Of the card.
            runtime: ``torchscript``, traced (NAME.pt); ``onnx`` (NAME.onnx; needs the packages onnx and onnxruntime);
                ``pt2``, compiled by AOTInductor for this kind of processor (NAME.pt2; needs a C++ compiler), with its
                vector-Jacobian product (NAME-vjp.pt2) where the field has one: it is trained by gradients then.

        Raises:
            ValueError: For another ``runtime``.
            RuntimeError: Where what was written computes something else than the module.
        """
        path_of = {key: value for key, value in self.convention.path.items() if key != "end"}
        document = {
            "format": "bespoke-model",
            "version": 1,
            "shape": list(self.shape),
            "output": "velocity" if self.convention.output == "flow" else self.convention.output,
            "scheduler": path_of,
            "time": {"end": self.convention.path.get("end", 1.0)},
            "classes": self.classes,
            "data_range": list(self.data_range),
        }
        if self.null:
            document["null_class"] = self.classes
        return write_model(_Traced(self).eval(), path, document, runtime, vjp=self.vjp is not None)

    def _pieces(self, batch: int) -> list[slice]:
        size = batch if self.max_batch is None else max(1, self.max_batch // (2 if self._guided else 1))
        return [slice(first, min(first + size, batch)) for first in range(0, batch, max(size, 1))]

    @property
    def _guided(self) -> bool:
        return self.guidance_scale != 1.0

    def _scalars(self, t: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of each sample, u = x state + output o, both with their derivatives by time, and the module's timestep."""
        found: list[VelocityScalars] = self.convention.scalars(t.tolist())
        columns = {name: [getattr(s, name) for s in found] for name in ("x", "x_dot")}
        for name in ("output", "output_dot"):
            columns[name] = [self.convention.sign * getattr(s, name) for s in found]
        times = np.array([s.t for s in found])
        columns["timestep"] = self.convention.timestep_at(times).tolist()
        columns["slope"] = self.convention.timestep_slope(times).tolist()
        return {name: torch.tensor(values, dtype=torch.float32) for name, values in columns.items()}

    def _kwargs(self, classes: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """What the module is given beside state and timestep; with guidance once more, of the null condition."""
        if classes is None:
            return {}
        rows = classes.to(self._device)
        given = {key: values[rows] for key, values in self._on_device(self.conditions).items()}
        if not self._guided:
            return given
        nothing = self._on_device(self.null)
        null = {key: nothing[key].expand_as(values) for key, values in given.items()}
        return {key: torch.cat([given[key], null[key]]) for key in given}

    def _on_device(self, of: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Conditions where the module is, brought there once."""
        key = id(of), self._device
        if key not in self._placed:
            self._placed[key] = {name: values.to(self._device) for name, values in of.items()}
        return self._placed[key]

    def _output(self, x: torch.Tensor, timestep: torch.Tensor, classes: torch.Tensor | None) -> torch.Tensor:
        """The module's guided output, on its device, in its dtype."""
        if not self._guided or classes is None:
            return self._call(x, timestep, self._kwargs(classes))[:, : x.shape[1]]
        both = self._call(torch.cat([x, x]), torch.cat([timestep, timestep]), self._kwargs(classes))[:, : x.shape[1]]
        conditional, unconditional = both.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _velocity(self, x: torch.Tensor, classes: Any, scalars: dict[str, torch.Tensor], rows: slice) -> torch.Tensor:
        state, timestep, some = self._inputs(x, classes, scalars, rows)
        output = self._output(state, timestep, some).float().cpu()
        return _by_row(scalars["x"][rows], x[rows]) + _by_row(scalars["output"][rows], output)

    def _inputs(self, x: torch.Tensor, classes: Any, scalars: dict[str, torch.Tensor], rows: slice) -> Any:
        some = None if classes is None else classes[rows]
        return x[rows].to(self._device, self._dtype), scalars["timestep"][rows].to(self._device), some

    def _pull_back(self, x: torch.Tensor, classes: Any, w: torch.Tensor, scalars: Any, rows: slice) -> Any:
        of = {name: values[rows] for name, values in scalars.items()}
        state, timestep, some = self._inputs(x, classes, scalars, rows)
        # A copy: x is the library's memory.
        state, timestep = state.clone().requires_grad_(), timestep.clone().requires_grad_()
        seed = _by_row(of["output"], w[rows])
        with torch.enable_grad():
            output = self._output(state, timestep, some)
            by_state, by_timestep = torch.autograd.grad(
                output, (state, timestep), seed.to(output.device, output.dtype), allow_unused=True
            )
        by_x = _by_row(of["x"], w[rows])
        if by_state is not None:
            by_x = by_x + by_state.float().cpu()
        changing = _by_row(of["x_dot"], x[rows]) + _by_row(of["output_dot"], output.detach().float().cpu())
        by_t = (w[rows] * changing).flatten(1).sum(1)
        if by_timestep is not None:
            by_t = by_t + of["slope"] * by_timestep.float().cpu()
        return by_x, by_t


def _by_row(scalars: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return scalars.reshape(-1, *[1] * (x.ndim - 1)) * x


def _check(name: str, given: Mapping[str, Any]) -> None:
    """That there are tensors alone, and of ``conditions`` as many rows in each."""
    for key, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{name} has {key} of type {type(value).__name__}, expected a tensor: what is nested is learned from by the"
                " pipeline's own call, fit(pipeline, prompts=..., calls=...), or by a TorchField(function, ...)"
            )
    rows = {key: tuple(value.shape[:1]) for key, value in given.items()}
    if name == "conditions" and (len(set(rows.values())) > 1 or () in rows.values() or (0,) in rows.values()):
        counts = {key: row[0] if row else "no" for key, row in rows.items()}
        raise ValueError(f"conditions has {counts} rows, expected the same number of each, one or more")


def _calling(module: Any) -> Callable[[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]:
    """How the module is called: diffusers' transformers have more between state and timestep, so by name."""
    function = module.forward if isinstance(module, torch.nn.Module) else module
    names = list(inspect.signature(function).parameters)
    by_name = "timestep" in names[1:]

    def call(x: torch.Tensor, timestep: torch.Tensor, kwargs: dict[str, torch.Tensor]) -> torch.Tensor:
        if by_name:
            answer = module(**{names[0]: x, "timestep": timestep, **kwargs})
        else:
            answer = module(x, timestep, **kwargs)
        if isinstance(answer, torch.Tensor):
            return answer
        return answer[0]

    return call


class _Traced(torch.nn.Module):
    """A field's module in the library's time, for export: ``forward(x, t)`` or ``forward(x, t, class)``."""

    def __init__(self, field: TorchField) -> None:
        super().__init__()
        if isinstance(field._module, torch.nn.Module):
            self.module = field._module
        convention = field.convention
        end = convention.path.get("end", 1.0)
        self._field = field
        self.register_buffer("times", torch.tensor(np.ascontiguousarray(convention.times) * end))
        self.register_buffer("timesteps", torch.tensor(np.ascontiguousarray(convention.timesteps)))
        for key, values in field.conditions.items():
            null = [field.null[key].reshape(1, *values.shape[1:])] if field.null else []
            self.register_buffer(f"condition_{key}", torch.cat([values, *null]))

    def forward(self, x: torch.Tensor, t: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        t = t.double()
        # As `torch.searchsorted` finds it, which ONNX does not have.
        i = ((self.times <= t[:, None]).sum(1) - 1).clamp(0, self.times.numel() - 2)
        share = (t - self.times[i]) / (self.times[i + 1] - self.times[i])
        timestep = torch.lerp(self.timesteps[i], self.timesteps[i + 1], share).float()
        kwargs = {}
        if classes is not None:
            kwargs = {key: getattr(self, f"condition_{key}")[classes] for key in self._field.conditions}
        output = self._field._call(x, timestep, kwargs)[:, : self._field.shape[0]]
        sign = self._field.convention.sign * (-1.0 if self._field.convention.output == "flow" else 1.0)
        return sign * output
