"""A model with named inputs, sizes and a chain of scales: its card, random requests, and the answers by numpy.

The network is `bespoke_conditioned` of velocity.cpp.
"""

import numpy as np

CARD = {
    "shape": ["frames", 3],
    "inputs": [
        {"name": "cond", "dtype": "float32", "shape": ["frames", 3], "null": 0},
        {"name": "text", "dtype": "int64", "shape": ["tokens"], "null": 0},
        {"name": "mask", "dtype": "bool", "shape": ["frames"]},
        {"name": "weight", "dtype": "float32", "shape": []},
    ],
    "guidance": {
        "passes": [{"without": ["cond", "text"]}, {"without": ["cond"], "scale": "text_scale"}, {"scale": "guidance_scale"}],
        "interval": [0, 0.5],
    },
}  # fmt: skip
PARAMETERS = {"velocity_symbol": "bespoke_conditioned", "solver": "euler@5"}


def card(**changes):
    return {key: value for key, value in {**CARD, **changes}.items() if value is not None}


def order(rng, frames, tokens, rows=1):
    """The tensors of a request."""
    return {
        "NOISE": rng.standard_normal((rows, frames, 3)).astype(np.float32),
        "cond": rng.standard_normal((rows, frames, 3)).astype(np.float32),
        "text": rng.integers(-9, 9, (rows, tokens)),
        "mask": rng.random((rows, frames)) < 0.7,
        "weight": rng.standard_normal((rows, 1)).astype(np.float32),
        "text_scale": rng.choice([1, 0.5, 2.5], (rows, 1)).astype(np.float32),
        "GUIDANCE_SCALE": rng.choice([1, 3], rows).astype(np.float32),
    }


def network(x, t, cond, text, mask, weight):
    u = np.where(mask[:, :, None], cond, 0) + text.mean(1)[:, None, None] / 10
    return u + weight[:, :, None] * t - x / 2


def euler(given, nfe=5):
    """What the server should answer."""
    x, cond, text = given["NOISE"].astype(float), given["cond"], given["text"]
    rest = given["mask"], given["weight"]
    text_scale = given["text_scale"].reshape(-1, 1, 1)
    scale = np.reshape(given["GUIDANCE_SCALE"], (-1, 1, 1))
    for k in range(nfe):
        t = k / nfe
        full = network(x, t, cond, text, *rest)
        if t <= 0.5:
            bare = network(x, t, 0 * cond, 0 * text, *rest)
            texts = network(x, t, 0 * cond, text, *rest)
            full = bare + text_scale * (texts - bare) + scale * (full - texts)
        x = x + full / nfe
    return x
