"""Training on a velocity field of the caller's own."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import _native
from ._arrays import maker, stored, view, write
from ._callbacks import Raised
from ._native import lib
from .theta import Theta


@dataclass(frozen=True)
class Progress:
    """How far a training run has come.

    Attributes:
        iteration: Iterations done; 0 after the first validation.
        iterations: Iterations in all.
        loss: The last batch's loss; NaN before the first.
        validation_rmse: Last validation: per-sample RMSE against the ground truth, averaged.
        validation_psnr: The same, in dB.
        best_rmse: The best validation so far.
        best_psnr: The same, in dB.
        forward: Samples evaluated so far, ground truth and validation included.
        backward: Samples differentiated so far.
        validated: Whether the validation is of this very iteration.
    """

    iteration: int
    iterations: int
    loss: float
    validation_rmse: float
    validation_psnr: float
    best_rmse: float
    best_psnr: float
    forward: int
    backward: int
    validated: bool


Observer = Callable[[Progress], Any]
"""Told of every iteration; answers True to stop with the best theta so far."""


class _Bar:
    """A tqdm bar, where there is a tqdm, from the first report on."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self.bar is None:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self.bar = tqdm(desc="training", total=progress.iterations)
        self.bar.update(progress.iteration - self.bar.n)
        self.bar.set_postfix(rmse=f"{progress.best_rmse:.5f}", psnr=f"{progress.best_psnr:.2f}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def train(
    field: Callable[..., Any] | None = None,
    *,
    vjp: Callable[..., Any] | None = None,
    shape: Sequence[int] | None = None,
    classes: int | None = None,
    conditions: Mapping[str, Any] | Sequence[str | os.PathLike[str]] | None = None,
    data_range: tuple[float, float] | None = None,
    precision: str | None = None,
    name: str | None = None,
    library: str | None = None,
    progress: bool | Observer = True,
    **options: Any,
) -> Theta:
    """Learns a theta for ``field``.

    Args:
        field: ``u = field(t, x)``, or ``field(t, x, classes)`` where there are classes: float32 t ``[batch]`` in
            [0, 1] from noise to data, x and u ``[batch, *shape]``, int64 classes ``[batch]``. The arrays are the
            library's memory: not to be written, nor kept beyond the call. It may be an object that has ``shape`` and,
            as far as they differ from the defaults, the other arguments as attributes, as `TorchField` is. None where
            ``model`` among the options names a model card.
        vjp: ``by_x, by_t = vjp(t, x, w)``, or ``vjp(t, x, classes, w)``: for the cotangent w ``[batch, *shape]``
            w^T du/dx, ``[batch, *shape]``, and w . du/dt, ``[batch]``. Without one, and for ``ns`` of up to 8
            evaluations unless ``optimizer`` says ``"gauss-newton"``, training takes forward passes alone.
        shape: Of one sample.
        classes: Number of classes; sample i gets class i mod classes.
        conditions: In place of classes what each sample is given, by name, arrays ``[C, ...]`` of ``library``: sample
            i gets row i mod C of each, ``field(t, x, **rows)`` and ``vjp(t, x, w, **rows)``. With ``model`` those of
            the card's inputs, of any library, or files that hold them (``docs/formats.md``).
        data_range: Least and greatest value of the data, for PSNR; [-1, 1] by default.
        precision: What velocities are computed in, for differences: ``float32``, ``float16`` or ``bfloat16``.
        name: What the field is called in the theta's notes.
        library: Whose arrays ``field`` is given: ``numpy`` (default), ``torch`` or ``jax``.
        progress: A tqdm bar, nothing, or a function that is told of every iteration.
        options: Keys of a training configuration (``docs/formats.md``): ``family``, ``steps``, ``loss``,
            ``iterations``, ``seed``, ``out``, ... .

    Raises:
        BespokeError: With the library's message.
        BaseException: Whatever a callback raised, or a signal's handler: KeyboardInterrupt on Ctrl-C.

    Warns:
        RuntimeWarning: Of each of ``warnings`` in the theta's notes, as where velocities depend on the batch that a
            sample is in.
    """
    if field is None:
        with _files(conditions) as files:
            return _train({**options, **({"conditions": files} if files else {})}, _native.TrainCallbacks(), Raised(), progress)
    if conditions is not None and not isinstance(conditions, Mapping):
        raise TypeError(f"conditions is {type(conditions).__name__}, expected a mapping of arrays beside field")
    if conditions is not None and classes is not None:
        raise ValueError("classes and conditions are both given, expected one of them")
    raised, callbacks = Raised(), _native.TrainCallbacks()
    classes = classes if conditions is None else _rows(conditions)
    given = {"shape": shape, "classes": classes, "data_range": data_range, "precision": precision, "name": name}
    own = {key: getattr(field, key, None) if value is None else value for key, value in given.items()}
    if own["shape"] is None:
        raise ValueError("shape is None, expected that of one sample")
    described: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    described["shape"] = [int(size) for size in described["shape"]]
    make = maker(library or str(getattr(field, "library", "numpy")))
    vjp = vjp or getattr(field, "vjp", None)
    if conditions is not None:
        field, vjp = _conditioned(field, vjp, conditions)
    _set_field(callbacks, raised, field, vjp, make)
    return _train({"field": described, **options}, callbacks, raised, progress)


def _train(options: dict[str, Any], callbacks: Any, raised: Raised, progress: bool | Observer) -> Theta:
    bar = _Bar() if progress is True else None
    observe = bar if bar is not None else progress
    if not callable(observe):
        observe = _say_nothing
    # Also where nobody is told: a signal is heard of in a callback.
    callbacks.progress = _native.PROGRESS(raised.guard(lambda _, p: observe(_progress(p.contents)) is True))
    document = _native.json_bytes(options)
    try:
        out = _native.c_void_p()
        with raised.signals():
            status = lib.bespoke_train(document, callbacks, out)
        theta = Theta(out.value) if out.value else None
        raised.check(status)
        assert theta is not None
        for warning in theta.training.get("warnings", []):
            warnings.warn(warning, RuntimeWarning, stacklevel=3)
        return theta
    finally:
        if bar is not None:
            bar.close()


def _rows(conditions: Mapping[str, Any]) -> int:
    """How many rows all of ``conditions`` have."""
    counts = {name: len(values) for name, values in conditions.items()}
    if not counts or not all(counts.values()):
        raise ValueError(f"conditions have {counts or 'no'} rows, expected arrays of at least one")
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other != count:
            raise ValueError(f"conditions[{name!r}] has {other} rows, expected {count}, as conditions[{first!r}] has")
    return count


def _conditioned(field: Any, vjp: Any, conditions: Mapping[str, Any]) -> tuple[Any, Any]:
    """Functions of classes in place of those of ``conditions``: class c is their row c."""

    def rows(classes: Any) -> dict[str, Any]:
        return {name: values[classes] for name, values in conditions.items()}

    def evaluate(t: Any, x: Any, classes: Any) -> Any:
        return field(t, x, **rows(classes))

    def pull_back(t: Any, x: Any, classes: Any, w: Any) -> Any:
        return vjp(t, x, w, **rows(classes))

    return evaluate, None if vjp is None else pull_back


@contextmanager
def _files(conditions: Any) -> Iterator[list[str]]:
    """The files that a training configuration names, one for a mapping of arrays."""
    if conditions is None:
        yield []
    elif isinstance(conditions, Mapping):
        _rows(conditions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "conditions.safetensors"
            path.write_bytes(stored(conditions))
            yield [str(path)]
    else:
        yield [os.fspath(path) for path in conditions]


def _say_nothing(_: Progress) -> None:
    pass


def _progress(p: _native.TrainProgress) -> Progress:
    values = {f.name: getattr(p, f.name) for f in fields(Progress)}
    return Progress(**{**values, "validated": bool(p.validated)})


def _set_field(callbacks: Any, raised: Raised, field: Any, vjp: Any, make: Any) -> None:
    def arrays(call: Any) -> list[Any]:
        inputs = [call.inputs[i].tensor for i in range(call.input_count)]
        return [make(*view(tensor.contents)) for tensor in (call.time, call.x, *inputs)]

    def evaluate(_: Any, asked: Any) -> None:
        call = asked.contents
        write("the velocity", call.output.contents, field(*arrays(call)))

    def pull_back(_: Any, asked: Any) -> None:
        call = asked.contents
        of_x, of_t = vjp(*arrays(call), make(*view(call.cotangent.contents)))
        write("vjp's first answer", call.by_x.contents, of_x)
        write("vjp's second answer", call.by_t.contents, of_t)

    callbacks.velocity = _native.CALL(raised.guard(evaluate))
    if vjp is not None:
        callbacks.vjp = _native.CALL(raised.guard(pull_back))
