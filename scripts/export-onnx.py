#!/usr/bin/env python3
"""Writes TorchScript models as ONNX, each beside its card with a card of its own, and compares the two.

    python3 scripts/export-onnx.py models/digits-fm-ot.json

makes models/digits-fm-ot.onnx and models/digits-fm-ot-onnx.json. Needs torch, onnx and onnxruntime.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import onnxruntime
import torch

OPSET = 17
#: Of the velocities, absolute.
TOLERANCE = 1e-5


def arguments_of(card, batch, seed):
    """States, times, classes and inputs as the network takes them; named sizes differ from seed to seed."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(shape):
        return [6 + (seed + sum(map(ord, size))) % 5 if isinstance(size, str) else size for size in shape]

    found = {
        "x": torch.randn(batch, *numbers(card["shape"]), generator=generator),
        "t": torch.rand(batch, generator=generator) * card.get("time", {}).get("scale", 1.0),
    }
    if classes := card.get("classes", 0):
        found["class"] = torch.randint(0, classes, (batch,), generator=generator)
    for given in card.get("inputs", []):
        shape = [batch, *numbers(given["shape"])]
        if given["dtype"] == "float32":
            found[given["name"]] = torch.rand(shape, generator=generator) * 2 - 1
        elif given["dtype"] == "int64":
            # An index: 0 is one whatever it is of, and the null the greatest that a network of ours has.
            found[given["name"]] = torch.randint(0, given["null"] + 1, shape, generator=generator)
        else:
            sys.exit(f"input {given['name']} is of dtype {given['dtype']}, expected float32 or int64")
    return found


def dynamic(card):
    """Of each argument the dimensions whose sizes are not fixed, with their names; of the output those of x."""
    shapes = {"x": card["shape"], "t": [], "class": [], "output": card["shape"]}
    shapes |= {given["name"]: given["shape"] for given in card.get("inputs", [])}
    named = {name: {k: size for k, size in enumerate(shape, 1) if isinstance(size, str)} for name, shape in shapes.items()}
    return {name: {0: "batch", **sizes} for name, sizes in named.items()}


def export(path):
    """The greatest difference between the model of the card at `path` and what was written of it."""
    card = json.loads(path.read_text(encoding="utf-8"))
    if card["runtime"] != "torchscript":
        sys.exit(f"{path}: is a model of {card['runtime']}, expected one of torchscript")
    module = torch.jit.load(path.parent / card["weights"], map_location="cpu").eval()
    model = path.with_suffix(".onnx")
    given = arguments_of(card, batch=2, seed=0)
    axes = {name: sizes for name, sizes in dynamic(card).items() if name in (*given, "output")}
    with warnings.catch_warnings():
        # torch.export does not take TorchScript, which is all that there is of these models.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(given.values()), model, dynamo=False, opset_version=OPSET, input_names=list(given),
            output_names=["output"], dynamic_axes=axes,
        )
    card |= {"weights": model.name, "runtime": "onnx"}
    path.with_name(f"{path.stem}-onnx.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 2, 33):
        given = arguments_of(card, batch, seed=batch)
        [found] = session.run(None, {name: value.numpy() for name, value in given.items()})
        with torch.no_grad():
            expected = module(*given.values())
        worst = max(worst, (torch.from_numpy(found) - expected).abs().max().item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="+", type=Path, metavar="CARD", help="of TorchScript models")
    failed = False
    for path in parser.parse_args().cards:
        worst = export(path)
        failed |= not worst < TOLERANCE
        print(f"{path}: {worst:.1e} from the TorchScript model at most")
    sys.exit(failed)


if __name__ == "__main__":
    main()
