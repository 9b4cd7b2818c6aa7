"""Training on a velocity field of the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from . import _native
from ._arrays import maker, view, write
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
            w^T du/dx, ``[batch, *shape]``, and w . du/dt, ``[batch]``. Without one training takes forward passes
            alone (``optimizer="forward-gauss-newton"``).
        shape: Of one sample.
        classes: Number of classes; row i of a batch gets class i mod classes.
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
    """
    raised, callbacks = Raised(), _native.TrainCallbacks()
    if field is not None:
        given = {"shape": shape, "classes": classes, "data_range": data_range, "precision": precision, "name": name}
        own = {key: getattr(field, key, None) if value is None else value for key, value in given.items()}
        if own["shape"] is None:
            raise ValueError("shape is None, expected that of one sample")
        described: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
        described["shape"] = [int(size) for size in described["shape"]]
        options = {"field": described, **options}
        make = maker(library or str(getattr(field, "library", "numpy")))
        _set_field(callbacks, raised, field, vjp or getattr(field, "vjp", None), make)
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
        return theta
    finally:
        if bar is not None:
            bar.close()


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
