"""Theta: a solver's numbers."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from . import _native
from ._native import lib

Scheduler = str | Mapping[str, Any]
"""``fm-ot``, ``cosine``, ``vp`` or ``edm``, or a mapping: a model card's ``scheduler``, and as ``end`` its ``time.end``."""


def scheduler_text(scheduler: Scheduler) -> bytes:
    """A scheduler as the library takes it."""
    return scheduler.encode() if isinstance(scheduler, str) else _native.json_bytes(dict(scheduler), "scheduler")


STATE = 0
"""The register of the state, x(0) at first."""

@dataclass(frozen=True)
class Combination:
    """Register ``target`` becomes ``velocity * u + sum_j coefficients[j] * (register registers[j])``."""

    target: int
    velocity: float
    registers: tuple[int, ...]
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Stage:
    """The scalars of one evaluation, for a program that applies them itself.

    Register 0 begins as x(0). For each stage: evaluate the velocity u at ``t``, in [0, 1] from noise to data, and the
    point, which is where the stage before wrote ``next``, at first register 0; then ``next`` is written, and ``kept``
    where there is one, both from what the registers held before. After the last, the point is x(1).
    """

    t: float
    next: Combination
    kept: Combination | None
    ends_step: bool
    #: Whether this evaluation and those after it need nothing but register 0: a solve may begin here.
    self_contained: bool


def _combination(c: _native.Combination) -> Combination:
    return Combination(c.target, c.velocity, tuple(c.registers[: c.count]), tuple(c.coefficients[: c.count]))


class Theta:
    """A solver: a learned one from a file, or a published one (`solver`). Immutable; any number of threads."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        info = _native.ThetaProperties()
        _native.check(lib.bespoke_theta_info(handle, info))
        #: ``rk1``, ``rk2`` or ``ns``; ``published`` for one of `solver`.
        self.family: str = info.family.decode()
        #: Number of steps.
        self.steps: int = info.steps
        #: Number of velocity evaluations of a sample.
        self.nfe: int = info.nfe
        #: What it was trained for.
        self.model: dict[str, Any] = json.loads(info.model)
        #: How it was trained.
        self.training: dict[str, Any] = json.loads(info.training)
        self._text: str | None = info.document.decode() if info.document else None

    @classmethod
    def load(cls, path: str | os.PathLike[str], nfe: int | None = None) -> Theta:
        """Reads a theta file, or from a ladder the theta of the greatest nfe that is at most ``nfe``."""
        if nfe is None:
            return cls(_native.make(lib.bespoke_load_theta, _native.path_bytes(path)))
        ladder = _native.make(lib.bespoke_ladder_load, _native.path_bytes(path))
        try:
            return cls(_native.make(lib.bespoke_ladder_theta, ladder, nfe))
        finally:
            lib.bespoke_ladder_free(ladder)

    @classmethod
    def load_all(cls, path: str | os.PathLike[str]) -> list[Theta]:
        """Reads all thetas of a ladder, by increasing nfe; a theta file is a ladder of one."""
        with open(path, encoding="utf-8-sig") as file:
            document = json.load(file)
        if not isinstance(document, dict) or document.get("format") != "bespoke-ladder":
            return [cls.load(path)]
        return [cls.parse(rung) for rung in document["rungs"]]

    @classmethod
    def parse(cls, document: str | Mapping[str, Any]) -> Theta:
        """Makes a theta from the content of its file, as text or as a mapping."""
        text = document.encode() if isinstance(document, str) else _native.json_bytes(document)
        return cls(_native.make(lib.bespoke_theta_parse, text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the theta file: a regular one as a whole, a pipe or a device as it is; ``-`` is standard output.

        Of a published solver that is what `compile` makes of it.
        """
        _native.check(lib.bespoke_theta_save(self._handle, _native.path_bytes(path)))

    @property
    def document(self) -> dict[str, Any]:
        """The content of the file (``docs/formats.md``); of a published solver, which has none, that of `compile`."""
        # What is compiled has a text.
        return json.loads(cast(str, self.compile()._text if self._text is None else self._text))

    def compile(self) -> Theta:
        """A published solver as a theta of family ``ns``, a table over all velocities; any other theta as it is."""
        return self if self._text is not None else Theta(_native.make(lib.bespoke_theta_compile, self._handle))

    def stages(self) -> list[Stage]:
        """The scalars of every evaluation."""
        stage, stages = _native.Stage(), []
        for k in range(self.nfe):
            _native.check(lib.bespoke_theta_stage(self._handle, k, stage))
            kept = None if stage.kept.target == _native.REGISTER_NONE else _combination(stage.kept)
            flags = bool(stage.ends_step), bool(stage.self_contained)
            stages.append(Stage(stage.t, _combination(stage.next), kept, *flags))
        return stages

    def for_output(self, scheduler: Scheduler, output: str) -> Theta:
        """The same solver, whose samplers take a model's ``output`` wherever they else take the velocity.

        Args:
            scheduler: The model's own.
            output: ``velocity``, ``epsilon``, ``x1``, ``v`` or ``flow`` (minus the velocity).
        """
        arguments = self._handle, scheduler_text(scheduler), output.encode()
        return Theta(_native.make(lib.bespoke_theta_for_output, *arguments))

    def show(self) -> str:
        """A text for people: what it is, how good it was in training, and its numbers."""
        lines = [f"{self.family}, {self.steps} steps, {self.nfe} evaluations"]
        if self._text is None:
            return "\n".join([*lines, f"model: {json.dumps(self.model)}", f"training: {json.dumps(self.training)}"])
        document = self.document
        lines += [f"{part}: {json.dumps(notes)}" for part in ("model", "training") if (notes := document.get(part))]
        columns = [key for key in ("t", "t_dot", "s", "s_dot", "a") if key in document]
        lines.append("".join(f"{name:>12}" for name in ["knot", *columns]))
        for i in range(max(len(document[key]) for key in columns)):
            numbers = [document[key][i] if i < len(document[key]) else None for key in columns]
            lines.append(f"{i:>12}" + "".join(" " * 12 if v is None else f"{v:12.6f}" for v in numbers))
        for i, row in enumerate(document.get("b", [])):
            lines.append(f"b[{i}]: " + " ".join(f"{v:.6f}" for v in row))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Theta(family={self.family!r}, steps={self.steps}, nfe={self.nfe})"

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Theta) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, ...]:
        return (self._text,) if self._text is not None else (json.dumps(self.model), json.dumps(self.training))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._text is not None:
            return Theta.parse, (self._text,)
        return _published, (self.training["solver"], {**self.model["scheduler"], "end": self.model["end"]})

    def __del__(self, free: Any = lib.bespoke_theta_free) -> None:
        if handle := getattr(self, "_handle", None):
            free(handle)


def _published(reference: str, scheduler: Scheduler) -> Theta:
    name, _, count = reference.partition("@")
    nfe, _, grid = count.partition(":")
    return solver(f"{name}:{grid}" if grid else name, int(nfe), scheduler)


def solver(name: str, nfe: int, scheduler: Scheduler = "fm-ot") -> Theta:
    """A published solver: ``euler``, ``midpoint``, ``dpm++2m``, ``unipc``, ... (``docs/solvers.md``).

    Args:
        name: Its name, or ``NAME:GRID`` for another grid than its own.
        nfe: Number of velocity evaluations.
        scheduler: That of the model.
    """
    return Theta(_native.make(lib.bespoke_theta_solver, name.encode(), nfe, scheduler_text(scheduler)))


@dataclass(frozen=True)
class VelocityScalars:
    """How a model's output makes the velocity: u = x * state + output * (the output), in solver time ``t``."""

    t: float
    alpha: float
    sigma: float
    x: float
    output: float
    x_dot: float
    output_dot: float


def velocity_scalars(scheduler: Scheduler, output: str, times: Any) -> list[VelocityScalars]:
    """The scalars of solver times in [0, 1]; arguments as in `Theta.for_output`."""
    times = [float(t) for t in times]
    count = len(times)
    scalars = (_native.VelocityScalars * max(count, 1))()
    given = (ctypes.c_double * max(count, 1))(*times)
    arguments = scheduler_text(scheduler), output.encode(), count, given, scalars
    _native.check(lib.bespoke_output_velocity(*arguments))
    names = VelocityScalars.__dataclass_fields__
    return [VelocityScalars(**{name: getattr(s, name) for name in names}) for s in scalars[:count]]
