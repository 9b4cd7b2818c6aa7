"""Torch modules as files that the library runs: TorchScript, ONNX and packages of AOTInductor, each with its card."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

#: What a card's ``runtime`` may be here, and the ends of its files' names: of the network, and of its product.
RUNTIMES = {"torchscript": (".pt", None), "onnx": (".onnx", None), "pt2": (".pt2", "-vjp.pt2")}
#: By how much an export may differ from the module, of the largest number that is compared.
TOLERANCE = 1e-4
#: Batches that an export is checked with: none is that of the example, and convolutions of 16 and more are chosen
#: otherwise than those of fewer.
BATCHES = (1, 2, 33)
OPSET = 17
#: As many threads as the program that runs the package has, not as many as this one.
INDUCTOR = {"cpp.dynamic_threads": True}


def write_model(
    network: torch.nn.Module,
    card: str | os.PathLike[str],
    document: Mapping[str, Any],
    runtime: str = "torchscript",
    *,
    vjp: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> Path:
    """Writes ``network`` for ``runtime`` beside a card, NAME.json, and checks what was written against it.

    Nothing is left where the check fails.

    Args:
        network: Called by place with state, time and the card's inputs (`class` first); on the CPU, in evaluation.
        card: NAME.json; the network is written as NAME.pt, NAME.onnx or NAME.pt2 beside it.
        document: The card, but for ``weights``, ``runtime`` and ``vjp``.
        runtime: ``torchscript``, ``onnx`` (needs the packages onnx and onnxruntime) or ``pt2`` (needs a C++ compiler;
            the package is of this kind of processor).
        vjp: For ``pt2``: whether NAME-vjp.pt2 is written, too, with which such a model is trained by gradients.
        sizes: Of the example, of the card's named sizes; multiples of 8 where left out.

    Raises:
        ValueError: Where ``runtime`` or a size is none.
        RuntimeError: Where what was written computes something else than the network.
    """
    card = Path(card)
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime is {runtime!r}, expected one of {', '.join(RUNTIMES)}")
    if card.suffix != ".json":
        raise ValueError(f"path is {str(card)!r}, expected that of a card, NAME.json")
    vjp = vjp and runtime == "pt2" and document.get("time", {}).get("shape") != "scalar"
    signature = _Signature(document, sizes or {})
    end, product_end = RUNTIMES[runtime]
    # Beside the card, so that a file can take its place at once.
    with tempfile.TemporaryDirectory(dir=card.parent, prefix=f".{card.stem}-") as folder:
        forward = Path(folder, card.stem + end)
        _FORWARD[runtime](network, forward, signature)
        _check(forward, lambda *given: (network(*given),), _RUN[runtime](forward), signature.examples())
        files = {"weights": forward}
        if vjp and product_end is not None:
            product = _Product(network, signature)
            files["vjp"] = Path(folder, card.stem + product_end)
            example = signature.arguments(signature.batch, 0)
            _package(product.traced(example), files["vjp"], [*example, product.cotangent(example)], signature, True)
            examples = ([*given, product.cotangent(given)] for given in signature.examples())
            _check(files["vjp"], product, _run_package(files["vjp"]), examples)
        for file in files.values():
            file.replace(card.parent / file.name)
    document = {**document, "runtime": runtime, **{key: file.name for key, file in files.items()}}
    card.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return card


_Row = list[int | str]
#: Name, dtype and shape of a row, None for a number that all rows share.
_Port = tuple[str, str, _Row | None]


class _Signature:
    """What a card says that its network is given, and made-up tensors of it."""

    def __init__(self, document: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.time = document.get("time", {})
        names = document.get("names", {})
        clocks: dict[str, _Row | None] = {"batch": [], "column": [1], "scalar": None}
        state: _Port = (names.get("x", "x"), "float32", list(document["shape"]))
        time: _Port = (names.get("time", "t"), self.time.get("dtype", "float32"), clocks[self.time.get("shape", "batch")])
        first = [time, state] if document.get("order") == ["time", "x"] else [state, time]
        self.classes = int(document.get("classes", 0))
        of_class: list[_Port] = [("class", "int64", [])] if self.classes else []
        rest: list[_Port] = [(given["name"], given["dtype"], list(given["shape"])) for given in document.get("inputs", [])]
        self.ports: list[_Port] = [*first, *of_class, *rest]
        self.state, self.clock = first.index(state), first.index(time)
        shapes = [size for _, _, shape in self.ports for size in shape or []]
        fixed = {size for size in shapes if isinstance(size, int)}
        named = [size for size in shapes if isinstance(size, str)]
        # Sizes that are equal by chance would be taken for one and the same.
        free = (8 * n for n in range(3, 1000) if 8 * n not in fixed | set(sizes.values()))
        self.sizes = {name: sizes[name] if name in sizes else next(free) for name in dict.fromkeys(named)}
        self.batch = next(n for n in (11, 13, 17, 19, 23) if n not in fixed | set(self.sizes.values()))

    def arguments(self, batch: int, seed: int, factor: int = 1) -> list[torch.Tensor]:
        """Tensors of a batch, of named sizes ``factor`` times those of the example."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for i, (name, dtype, row) in enumerate(self.ports):
            rows = [] if row is None else [batch, *(self._size(size, factor) for size in row)]
            if i == self.clock:
                time = torch.rand(rows, generator=generator) * self.time.get("scale", 1.0) + self.time.get("offset", 0)
                found.append(time.round().long() if dtype == "int64" else time)
            elif name == "class" and self.classes:
                found.append(torch.randint(0, self.classes, rows, generator=generator))
            elif dtype.startswith(("int", "bool")):
                found.append(torch.randint(0, 2, rows, generator=generator).to(getattr(torch, dtype)))
            else:
                found.append(torch.randn(rows, generator=generator).to(getattr(torch, dtype)))
        return found

    def _size(self, size: int | str, factor: int) -> int:
        return size if isinstance(size, int) else self.sizes[size] * factor

    def examples(self) -> list[list[torch.Tensor]]:
        """What an export is checked with."""
        factors = (1, 2) if self.sizes else (1,)
        return [self.arguments(batch, batch, factor) for batch in BATCHES for factor in factors]

    def axes(self, row: _Row | None) -> dict[int, str]:
        """Which dimensions of rows of this shape are the call's, and what they are called."""
        if row is None:
            return {}
        return {0: "batch"} | {i: size for i, size in enumerate(row, 1) if isinstance(size, str)}


class _Product(torch.nn.Module):
    """The vector-Jacobian product of a network: its output, and the gradients by state and time for a cotangent."""

    def __init__(self, network: torch.nn.Module, signature: _Signature) -> None:
        super().__init__()
        self.network, self._signature = network, signature

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        *given, cotangent = arguments
        state, clock = self._signature.state, self._signature.clock
        # Between integer times the output does not change.
        moving = [place for place in (state, clock) if given[place].is_floating_point()]
        # By autograd and not `torch.func`, which fixes sizes in the graph.
        with torch.enable_grad():
            for place in moving:
                given[place] = given[place].detach().requires_grad_()
            output = self.network(*given)
            found = torch.autograd.grad(output, [given[place] for place in moving], cotangent, allow_unused=True)
        gradients = dict(zip(moving, found, strict=True))
        by_state, by_time = (
            torch.zeros_like(given[place], dtype=torch.float32) if gradients.get(place) is None else gradients[place]
            for place in (state, clock)
        )
        return output.detach(), by_state, by_time.reshape(-1)

    def cotangent(self, given: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.randn(given[self._signature.state].shape, generator=torch.Generator().manual_seed(1))

    def traced(self, given: Sequence[torch.Tensor]) -> torch.nn.Module:
        """The product as a graph: `torch.export` does not go through autograd itself."""
        from torch.fx.experimental.proxy_tensor import make_fx

        trace = make_fx(self.forward, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        return trace(*given, self.cotangent(given))


def _trace(network: torch.nn.Module, file: Path, signature: _Signature) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(network, tuple(signature.arguments(signature.batch, 0)), check_trace=False)
        traced.save(str(file))


def _onnx(network: torch.nn.Module, file: Path, signature: _Signature) -> None:
    names = [name for name, _, _ in signature.ports]
    axes = {name: signature.axes(row) for name, _, row in signature.ports}
    axes["output"] = axes[names[signature.state]]
    with warnings.catch_warnings():
        # The newer exporter needs more packages, and says of this one that it is the older.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(signature.arguments(signature.batch, 0)),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["output"],
            dynamic_axes=axes,
        )


def _compile(network: torch.nn.Module, file: Path, signature: _Signature) -> None:
    _package(network, file, signature.arguments(signature.batch, 0), signature, False)


def _package(
    network: torch.nn.Module, file: Path, given: list[torch.Tensor], signature: _Signature, cotangent: bool
) -> None:
    rows = [row for _, _, row in signature.ports]
    if cotangent:
        rows.append(rows[signature.state])
    dynamic = [dict.fromkeys(signature.axes(row), torch.export.Dim.DYNAMIC) for row in rows]
    called = _ByPlace(network)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(called, tuple(given), dynamic_shapes=(tuple(dynamic),))
        torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=INDUCTOR)


class _ByPlace(torch.nn.Module):
    """A module that is given tensors by place, whatever it calls them."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: torch.Tensor) -> Any:
        return self.network(*given)


_Run = Callable[..., Sequence[torch.Tensor]]


def _run_script(file: Path) -> _Run:
    module = torch.jit.load(str(file))
    return lambda *given: (module(*given),)


def _run_onnx(file: Path) -> _Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda *given: [
        torch.from_numpy(out) for out in session.run(None, dict(zip(names, (g.numpy() for g in given), strict=True)))
    ]


def _run_package(file: Path) -> _Run:
    loaded = torch._inductor.aoti_load_package(str(file))

    def run(*given: torch.Tensor) -> Sequence[torch.Tensor]:
        answer = loaded(*given)
        return [answer] if isinstance(answer, torch.Tensor) else answer

    return run


_FORWARD = {"torchscript": _trace, "onnx": _onnx, "pt2": _compile}
_RUN = {"torchscript": _run_script, "onnx": _run_onnx, "pt2": _run_package}


def _check(file: Path, expected: _Run, found: _Run, examples: Any) -> None:
    """Whether what ``file`` computes is what the module does, for batches other than the example."""
    for given in examples:
        with torch.no_grad():
            pairs = list(zip(expected(*given), found(*given), strict=True))
        for own, other in pairs:
            if own.shape != other.shape:
                raise RuntimeError(f"{file.name}: answers {list(other.shape)}, where the module has {list(own.shape)}")
            difference = (own.float() - other.float()).abs().max().item()
            if not difference <= TOLERANCE * max(1.0, own.float().abs().max().item()) or math.isnan(difference):
                shapes = ", ".join(str(list(tensor.shape)) for tensor in given)
                raise RuntimeError(f"{file.name}: differs from the module by {difference:.2g} for inputs {shapes}")
