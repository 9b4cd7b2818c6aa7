"""Writes an ONNX model anew as engines have it, with a card beside each:

    scripts/make-quantized.py models/digits-fm-ot-onnx.json --out FOLDER

FOLDER/float16.json computes in half precision; FOLDER/int8.json has weights of 8 bits, and quantises what comes between by
the range of each batch ("dynamic quantisation"), so that a sample's velocity depends on its batch. Needs onnx and
onnxruntime (.venv-python).
"""

import argparse
import json
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16


def float16(source, out):
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), out)


def int8(source, out):
    # Constants become initialisers, which is what is quantised.
    folded = out.with_suffix(".folded.onnx")
    quant_pre_process(source, folded, skip_symbolic_shape=True)
    quantize_dynamic(folded, out, weight_type=QuantType.QUInt8)
    folded.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    card = json.loads(given.card.read_text())
    card.pop("features", None)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, write in (("float16", float16), ("int8", int8)):
        write(given.card.parent / card["weights"], given.out / f"{name}.onnx")
        (given.out / f"{name}.json").write_text(json.dumps({**card, "weights": f"{name}.onnx"}, indent=2) + "\n")


if __name__ == "__main__":
    main()
