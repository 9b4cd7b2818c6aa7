"""Writes a model anew as engines have it, with a card beside each:

    scripts/make-quantized.py models/digits-fm-ot-onnx.json --out FOLDER
    scripts/make-quantized.py models/digits-fm-ot.json --out FOLDER

Of an ONNX model, FOLDER/float16.json computes in half precision; FOLDER/int8.json has weights of 8 bits, and quantises what
comes between by the range of each batch ("dynamic quantisation"), so that a sample's velocity depends on its batch. Of a
TorchScript model, FOLDER/bfloat16.json has its convolutions and matrix products in bfloat16 and the rest in single
precision, as autocast has it. Needs torch, onnx and onnxruntime (.venv-python).
"""

import argparse
import json
from pathlib import Path

import onnx
import torch
from export import Replayed
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16


def float16(_card, source, out):
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), out)


def int8(_card, source, out):
    # Constants become initialisers, which is what is quantised.
    folded = out.with_suffix(".folded.onnx")
    quant_pre_process(source, folded, skip_symbolic_shape=True)
    quantize_dynamic(folded, out, weight_type=QuantType.QUInt8)
    folded.unlink()


#: What autocast computes in bfloat16.
PRODUCTS = {"aten::_convolution", "aten::linear", "aten::matmul"}


def product(kind, operator):
    """An operator that takes products, in bfloat16 on numbers of single precision; others as they are."""

    def rounded(value):
        return value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return (lambda *given: operator(*map(rounded, given)).float()) if kind in PRODUCTS else operator


def bfloat16(card, source, out):
    network = Replayed(torch.jit.load(source, map_location="cpu").eval(), product)
    inputs = torch.randn(3, *card["shape"]), torch.rand(3), torch.arange(3)
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(network, inputs), out)


ENGINES = {"onnx": {"float16": float16, "int8": int8}, "torchscript": {"bfloat16": bfloat16}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    card = json.loads(given.card.read_text())
    card.pop("features", None)
    if card["runtime"] not in ENGINES:
        parser.error(f"{given.card}: runtime is {card['runtime']}, expected {' or '.join(ENGINES)}")
    given.out.mkdir(parents=True, exist_ok=True)
    source = given.card.parent / card["weights"]
    for name, write in ENGINES[card["runtime"]].items():
        weights = (given.out / name).with_suffix(source.suffix)
        write(card, source, weights)
        weights.with_suffix(".json").write_text(json.dumps({**card, "weights": weights.name}, indent=2) + "\n")


if __name__ == "__main__":
    main()
