"""Writes frechet.json and two small TorchScript networks: what tests/all/distance.rs is held against.

    python tests/golden/make_frechet.py

Needs numpy, scipy, torch, pytorch-fid 0.3.0 and prdc 0.2 (with scikit-learn). The Fréchet distance
comes from pytorch-fid (scipy's sqrtm) and, for covariances without a root that sqrtm would find,
from the singular values of X1 X2^T, whose sum is the trace of the root: an algorithm of its own.
"""

import json
import math
from pathlib import Path
from typing import Dict, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance

HERE = Path(__file__).parent
MODELS = HERE.parent.parent / "models"


def by_singular_values(a, b):
    mean = np.sum((a.mean(0) - b.mean(0)) ** 2)
    root = [(x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (a, b)]
    trace = sum(np.sum(x**2) for x in root) - 2 * np.linalg.svd(root[0] @ root[1].T, compute_uv=False).sum()
    return float(mean + trace)


def by_pytorch_fid(a, b):
    return float(calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)))


def sets(seed, counts, features, shift, scale):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(features, features)) / math.sqrt(features)
    a = rng.normal(size=(counts[0], features)) @ mix + 10.0
    b = (rng.normal(size=(counts[1], features)) * scale) @ mix.T + 10.0 + shift
    return np.float32(a).astype(float), np.float32(b).astype(float)


def distances():
    cases = []
    for name, arguments in {
        "regular": (0, (60, 45), 8, 0.3, 1.4),
        "wide": (1, (90, 70), 24, 0.05, 0.9),
        "fewer samples than features": (2, (9, 7), 16, 0.2, 1.2),
    }.items():
        a, b = sets(*arguments)
        found = by_singular_values(a, b)
        if len(b) > b.shape[1]:
            np.testing.assert_allclose(found, by_pytorch_fid(a, b), rtol=1e-6)
        shares = compute_prdc(real_features=a, fake_features=b, nearest_k=3)
        cases.append(
            dict(name=name, features=a.shape[1], a=a.ravel().tolist(), b=b.ravel().tolist(), frechet=found,
                 precision=float(shares["precision"]), recall=float(shares["recall"]))
        )
    return cases


class Several(torch.nn.Module):
    """Answers (logits, features with places left); the features only where asked for."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3)

    def forward(self, x, return_features: bool = False, gain: float = 1.0) -> Tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.conv(x)) * gain
        return h.mean([1, 2, 3]).unsqueeze(1), h if return_features else h * 0.0


class Named(torch.nn.Module):
    """Answers a dictionary."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 4)

    def forward(self, x) -> Dict[str, torch.Tensor]:
        h = self.linear(x.flatten(1))
        return {"logits": h[:, :1], "pool3": h.relu()}


def image(count, *shape):
    size = count * math.prod(shape)
    values = [math.sin(0.37 * i) * 1.1 for i in range(size)]
    return torch.tensor(values, dtype=torch.float64).float().reshape(count, *shape)


def networks():
    torch.manual_seed(0)
    several, named = Several().eval(), Named().eval()
    torch.jit.script(several).save(str(HERE / "features-several.pt"))
    torch.jit.script(named).save(str(HERE / "features-named.pt"))
    digits = torch.jit.load(str(MODELS / "digits-features.pt"))
    byte = lambda x: (((x + 1) / 2).clamp(0, 1) * 255).round()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = lambda x: ((x + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    size = lambda x, mode, n, aa=False: F.interpolate(x, n, mode=mode, align_corners=False, antialias=aa)
    files = dict(digits="../../models/digits-features.pt", several="features-several.pt", named="features-named.pt")
    resize = lambda filter, n, aa=False: dict(size=[n, n], filter=filter, antialias=aa)

    def case(name, network, shape, card, features):
        with torch.no_grad():
            values = features(image(2, *shape))
        card = dict(format="bespoke-features", version=1, runtime="torchscript", weights=files[network]) | card
        return dict(name=name, shape=shape, card=card, features=values.double().flatten().tolist())

    return [
        case("as it is", "digits", [1, 8, 8], {}, digits),
        case("bilinear", "digits", [1, 5, 7], dict(resize=resize("bilinear", 8)), lambda x: digits(size(x, "bilinear", 8))),
        case("bicubic", "digits", [1, 5, 7], dict(resize=resize("bicubic", 8)), lambda x: digits(size(x, "bicubic", 8))),
        case("antialiased", "digits", [1, 19, 16], dict(resize=resize("bicubic", 8, True)),
             lambda x: digits(size(x, "bicubic", 8, True))),
        case("antialiased, bilinear", "digits", [1, 19, 16], dict(resize=resize("bilinear", 8, True)),
             lambda x: digits(size(x, "bilinear", 8, True))),
        case("quantised, arguments, an index", "several", [3, 6, 6],
             dict(range=[0, 255], quantize=True, arguments=[True, 0.5], output=1),
             lambda x: several(byte(x), True, 0.5)[1].mean([2, 3])),
        case("one channel as three, mean and deviation", "several", [1, 4, 4],
             dict(channels=3, resize=resize("bilinear", 6), range=[0, 1], mean=mean.tolist(), std=std.tolist(),
                  arguments=[True], output=1),
             # Resized first, then shifted: the order in which the card says it.
             lambda x: several(normal(size(x, "bilinear", 6).expand(-1, 3, -1, -1)), True)[1].mean([2, 3])),
        case("a key", "named", [3, 2, 2], dict(output="pool3"), lambda x: named(x)["pool3"]),
    ]


if __name__ == "__main__":
    document = dict(distances=distances(), networks=networks())
    (HERE / "frechet.json").write_text(json.dumps(document) + "\n")
