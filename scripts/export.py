#!/usr/bin/env python3
"""Writes TorchScript models for another runtime, each with a card of its own, and compares the two.

    python3 scripts/export.py --runtime onnx models/digits-fm-ot.json

makes models/digits-fm-ot-onnx.onnx and models/digits-fm-ot-onnx.json; `--runtime pt2` digits-fm-ot-pt2.pt2, its
vector-Jacobian product digits-fm-ot-pt2-vjp.pt2 and digits-fm-ot-pt2.json. Needs torch and bespoke_solver; onnx and
onnxruntime for ONNX, a C++ compiler for pt2.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from bespoke_solver.exporting import write_model


class Replayed(torch.nn.Module):
    """The straight graph of a TorchScript module, operator by operator: `torch.export` takes no TorchScript.

    `changed` may put another operator in the place of one of a kind."""

    def __init__(self, module, changed=lambda kind, operator: operator):
        super().__init__()
        graph = module.inlined_graph
        self._inputs = [value.debugName() for value in list(graph.inputs())[1:]]
        [self._output] = [value.debugName() for value in graph.outputs()]
        self._nodes, self._constants = [], {}
        for node in graph.nodes():
            outputs = [value.debugName() for value in node.outputs()]
            if node.kind() != "prim::Constant":
                inputs = [value.debugName() for value in node.inputs()]
                self._nodes.append((changed(node.kind(), _operator(node)), inputs, outputs))
                continue
            value = node.output().toIValue()
            if isinstance(value, torch.Tensor):
                self.register_buffer(f"constant_{len(self._constants)}", value.detach())
                value = f"constant_{len(self._constants)}", None
            self._constants[outputs[0]] = value

    def forward(self, *given):
        values = dict(zip(self._inputs, given, strict=True))
        for name, value in self._constants.items():
            values[name] = getattr(self, value[0]) if isinstance(value, tuple) else value
        for operator, inputs, outputs in self._nodes:
            answer = operator(*(values[name] for name in inputs))
            if len(outputs) == 1:
                values[outputs[0]] = answer
            else:
                values.update(zip(outputs, answer, strict=True))
        return values[self._output]


def _operator(node):
    kind = node.kind()
    if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
        return lambda *items: list(items)
    if kind in ("prim::ListUnpack", "prim::TupleUnpack"):
        return lambda items: items
    if not kind.startswith("aten::"):
        sys.exit(f"{kind}: expected a graph of a network's operators alone, as tracing makes it")
    if kind == "aten::_convolution":
        # What it has more says how it is computed, and it has no meaning for sizes that are not known yet.
        return lambda *given: torch.ops.aten.convolution.default(*given[:9])
    schema = torch._C.parse_schema(node.schema())
    operator = getattr(getattr(torch.ops.aten, kind.removeprefix("aten::")), schema.overload_name or "default")
    places = sum(not argument.kwarg_only for argument in schema.arguments)
    names = [argument.name for argument in schema.arguments[places:]]
    return lambda *given: operator(*given[:places], **dict(zip(names, given[places:], strict=False)))


def export(card, runtime, folder, vjp):
    """The card that was written."""
    document = json.loads(card.read_text(encoding="utf-8"))
    if document.pop("runtime") != "torchscript":
        sys.exit(f"{card}: expected a TorchScript model")
    module = torch.jit.load(card.parent / document.pop("weights"), map_location="cpu").eval()
    # A path of the document is relative to the card.
    if "features" in document and folder.resolve() != card.parent.resolve():
        document["features"] = str((card.parent / document["features"]).resolve())
    return write_model(Replayed(module).eval(), folder / f"{card.stem}-{runtime}.json", document, runtime, vjp=vjp)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="+", type=Path, metavar="CARD", help="of TorchScript models")
    parser.add_argument("--runtime", choices=["onnx", "pt2"], required=True)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="beside the card where left out")
    parser.add_argument("--forward-only", action="store_true", help="of pt2: without its vector-Jacobian product")
    arguments = parser.parse_args()
    for card in arguments.cards:
        out = arguments.out or card.parent
        out.mkdir(parents=True, exist_ok=True)
        print(export(card, arguments.runtime, out, not arguments.forward_only))


if __name__ == "__main__":
    main()
