"""The action expert of a smolvla as a model of this library, ONNX or a package, and an observation for the control loop.

What the policy keeps of an observation, the prefix's mask and the keys and values of every layer, are inputs of the
network: constants of a solve.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
from bespoke_solver.exporting import OPSET, write_model


class Expert(torch.nn.Module):
    """``denoise_step`` as a network of sample, time and the constants."""

    def __init__(self, policy):
        super().__init__()
        self.model = policy.model

    def forward(self, x, t, mask, *kept):
        layers = range(len(kept) // 2)
        cache = {i: {"key_states": kept[2 * i], "value_states": kept[2 * i + 1]} for i in layers}
        return self.model.denoise_step(x_t=x, timestep=t, prefix_pad_masks=mask, past_key_values=cache)


def kept_of(policy, batch):
    """What the policy keeps of a batch of observations, by the names of the network's inputs."""
    seen = []

    def denoise_step(**asked):
        seen.append(asked)
        return type(policy.model).denoise_step(policy.model, **asked)

    with _replaced(policy.model, denoise_step):
        policy.predict_action_chunk(dict(batch))
    kept = {"mask": seen[0]["prefix_pad_masks"]}
    for i, layer in seen[0]["past_key_values"].items():
        kept |= {f"key_{i}": layer["key_states"], f"value_{i}": layer["value_states"]}
    return kept


@contextlib.contextmanager
def _replaced(model, denoise_step):
    before = vars(model).get("denoise_step")
    model.denoise_step = denoise_step
    try:
        yield
    finally:
        del model.denoise_step
        if before is not None:
            model.denoise_step = before


def export(policy, path, kept, runtime="onnx"):
    """Writes card and model at ``path``, NAME.json, for constants like ``kept``; ``pt2`` takes a C++ compiler half a minute."""
    inputs = [
        {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape[1:])} for name, value in kept.items()
    ]
    card = {
        "format": "bespoke-model",
        "version": 1,
        "shape": [policy.config.chunk_size, policy.config.max_action_dim],
        "output": "flow",
        "scheduler": {"name": "fm-ot"},
        "time": {"direction": "data-to-noise"},
        "inputs": inputs,
    }
    with _masks_counted():
        return write_model(Expert(policy).eval(), path, card, runtime, vjp=False)


@contextlib.contextmanager
def _masks_counted():
    """The policy counts its tokens by a sum over a mask, which ONNX's CumSum does not take."""
    torch.onnx.register_custom_op_symbolic("aten::cumsum", _sum_of_mask, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::cumsum", OPSET)


def _sum_of_mask(graph, values, dim, dtype):
    whole = graph.op("Cast", values, to_i=7)  # int64
    return graph.op("CumSum", whole, dim)


def write_observation(folder, kept, noise):
    """The first observation of ``kept`` and ``noise``, ``[horizon, numbers]``, as control.cpp reads them."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    rows = {name: value[0].contiguous().numpy() for name, value in kept.items()}
    lines = [" ".join([name, str(row.dtype), *map(str, row.shape)]) for name, row in rows.items()]
    (folder / "observation.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "observation.raw").write_bytes(b"".join(row.tobytes() for row in rows.values()))
    (folder / "noise.raw").write_bytes(noise.contiguous().numpy().tobytes())


def read_actions(folder, shape):
    """The chunk that control.cpp wrote."""
    return torch.from_numpy(np.fromfile(Path(folder) / "actions.raw", np.float32).reshape(shape))
