"""Writes layers.json: distances in the layers of the networks that make_frechet.py writes, and their gradients, as the
authors of LPIPS compute them (their package's `normalize_tensor` and `spatial_average`, every channel weighted by 1).

    python tests/golden/make_layers.py

Needs torch, torchvision and lpips 0.1.4.
"""

import json
import math
from pathlib import Path

import torch
from lpips import normalize_tensor, spatial_average

HERE = Path(__file__).parent
FILES = {
    "digits": "../../models/digits-features.pt",
    "several": "features-several.pt",
    "named": "features-named.pt",
}


def samples(phase, count, *shape):
    values = [math.sin(0.37 * i + phase) * 1.1 for i in range(count * math.prod(shape))]
    return torch.tensor(values, dtype=torch.float64).float().reshape(count, *shape)


def distance(layers, weights):
    total = 0
    for (a, b), weight in zip(layers, weights):
        places = [x if x.dim() == 4 else x[:, :, None, None] for x in (a, b)]
        difference = (normalize_tensor(places[0]) - normalize_tensor(places[1])) ** 2
        total = total + weight * spatial_average(difference.sum(1, keepdim=True), keepdim=False).flatten()
    return total


def case(name, network, shape, card, layers, made_ready, weights):
    module = torch.jit.load(str(HERE / FILES[network]))
    a, b = samples(0.0, 2, *shape).requires_grad_(True), samples(0.9, 2, *shape)
    pairs = list(zip(layers(module, made_ready(a)), layers(module, made_ready(b))))
    found = distance(pairs, weights)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    card = dict(format="bespoke-features", version=1, runtime="torchscript", weights=FILES[network]) | card
    return dict(name=name, shape=shape, card=card, distances=found.tolist(), gradient=gradient.flatten().tolist())


def main():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = lambda x: ((x + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    cases = [
        case("one layer of features", "digits", [1, 8, 8], {}, lambda m, x: [m(x)], lambda x: x, [1.0]),
        case("two layers, weighted", "several", [3, 6, 6],
             dict(arguments=[True, 2.0], layers=[dict(output=1), dict(output=1, weight=0.25)]),
             lambda m, x: 2 * [m(x, True, 2.0)[1]], lambda x: x, [1.0, 0.25]),
        case("the card's output, in another range", "several", [3, 6, 6],
             dict(arguments=[True], output=1, range=[0, 1], mean=mean.tolist(), std=std.tolist()),
             lambda m, x: [m(x, True)[1]], normal, [1.0]),
        case("keys", "named", [3, 2, 2], dict(layers=[dict(output="pool3", weight=3)]),
             lambda m, x: [m(x)["pool3"]], lambda x: x, [3.0]),
    ]
    (HERE / "layers.json").write_text(json.dumps(dict(cases=cases)) + "\n")


if __name__ == "__main__":
    main()
