"""Writes the networks as ONNX, with weights in half precision, and recordings to begin with."""

import warnings

import numpy as np
import onnx
import torch
from network import TEXT, Guided
from onnx import TensorProto, helper, numpy_helper
from speech import ALPHABET, BANDS, HOP, RATE, Vocoder, write_wav

OPSET = 17
#: Smaller tensors are kept as they are.
SMALL = 256
#: Seconds of the recordings that a solve begins with, and how many there are.
PROMPT, PROMPTS = (1.0, 1.6), 6


def halved(model):
    """The same model, its larger weights kept in half precision."""
    kept, casts = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            kept.append(tensor)
            continue
        name = f"{tensor.name}.half"
        kept.append(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    return model


def written(network, file, given, output, dynamic, metadata=()):
    """One graph; `given` are example tensors by the names of its inputs, `dynamic` names their sizes."""
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter needs more packages, and says of this one that it is the older.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), tuple(given.values()), str(file), dynamo=False, opset_version=OPSET, do_constant_folding=False,
            input_names=list(given), output_names=[output], dynamic_axes=dynamic,
        )  # fmt: skip
    model = halved(onnx.load(file))
    for key, value in dict(metadata).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def write(voice, frames_per_token, spoken, folder):
    """encoder.onnx, decoder.onnx, velocity.onnx, features.onnx, vocoder.onnx, and the prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"alphabet": ALPHABET, "frames_per_token": f"{frames_per_token:.4f}", "rate": RATE, "hop": HOP}
    tokens = {"tokens": torch.ones(1, 7, dtype=torch.int64), "frames": torch.tensor([31])}
    frames, batch = "frames", "batch"
    spread = {"tokens": {1: "characters"}, "text_condition": {1: frames}}
    written(voice.encoder, folder / "encoder.onnx", tokens, "text_condition", spread, said)
    rows = lambda *sizes: torch.randn(3, 29, *sizes)
    state = {"x": rows(BANDS), "t": torch.rand(3), "text_condition": rows(TEXT), "speech_condition": rows(BANDS)}
    axes = {name: {0: batch, 1: frames} for name in ("x", "text_condition", "speech_condition", "v")}
    axes["t"] = {0: batch}
    written(voice.decoder, folder / "velocity.onnx", state, "v", axes)
    scale = {**state, "guidance_scale": torch.rand(3)}
    written(Guided(voice.decoder), folder / "decoder.onnx", scale, "v", {**axes, "guidance_scale": {0: batch}})
    sound = {"samples": torch.randn(3, 17 * HOP)}
    sizes = {"samples": {0: batch, 1: "samples"}, "features": {0: batch, 1: frames}}
    written(voice.features, folder / "features.onnx", sound, "features", sizes)
    written(Vocoder(voice.features), folder / "vocoder.onnx", {"features": rows(BANDS)}, "samples", sizes)
    write_prompts(spoken, folder)


def write_prompts(spoken, folder):
    """Some recordings of a bit more than a second, and what is said in them."""
    short = [one for one in spoken if PROMPT[0] <= len(one.samples) / RATE <= PROMPT[1] and len(one.tokens) >= 12]
    chosen = short[:: max(1, len(short) // PROMPTS)][:PROMPTS]
    for i, one in enumerate(chosen):
        write_wav(folder / f"prompt-{i}.wav", one.samples)
    lines = [f"prompt-{i}.wav\t{one.text}\n" for i, one in enumerate(chosen)]
    (folder / "prompts.txt").write_text("".join(lines), encoding="utf-8")
