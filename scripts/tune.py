"""Tunes a model of clothes by low-rank changes of its weights (LoRA), to see how far a solver that was learned before carries:

    scripts/tune.py models/fashion-fm-ot.json --data demo/fashion --images negative --out FOLDER

writes FOLDER/NAME-IMAGES.pt with a card. `negative` has the images' blacks and whites exchanged, `mirrored` left and right.
CARD is of runtime torchscript and path fm-ot. The changes are merged into the weights. Needs torch (.venv-python).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from export import Replayed

IMAGES = {"negative": lambda x: -x, "mirrored": lambda x: x.flip(-1)}
#: Weights that a change of low rank has fewer numbers than.
LEAST = 4096


def clothes(folder):
    """The images that are learned by, uint8 [60000, 1, 28, 28], and their classes."""
    images = np.frombuffer((folder / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((folder / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return torch.from_numpy(images.copy()).view(-1, 1, 28, 28), torch.from_numpy(labels.astype(np.int64))


def merged(weights, changes):
    return {name: weights[name].float() + (b @ a).view(weights[name].shape) for name, (a, b) in changes.items()}


def tuned(given, card, network):
    """The network's weights, changed."""
    torch.manual_seed(given.seed)
    weights = dict(network.named_buffers())
    changes = {}
    for name, weight in weights.items():
        if weight.dim() >= 2 and weight.numel() >= LEAST:
            rows, columns = weight.shape[0], weight[0].numel()
            a = torch.randn(given.rank, columns) / columns**0.5
            changes[name] = [a.requires_grad_(), torch.zeros(rows, given.rank, requires_grad=True)]
    numbers = [number for pair in changes.values() for number in pair]
    optimizer = torch.optim.AdamW(numbers, given.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.iterations)
    images, labels = clothes(given.data)
    recent = []
    for iteration in range(given.iterations):
        rows = torch.randint(len(images), (given.batch,))
        x1 = IMAGES[given.images](images[rows].float() / 127.5 - 1)
        told = torch.where(torch.rand(given.batch) < 0.15, card["null_class"], labels[rows])
        t = (torch.arange(given.batch) + torch.rand(given.batch)) / given.batch
        x0 = torch.randn_like(x1)
        at = t.view(-1, 1, 1, 1)
        answer = torch.func.functional_call(network, merged(weights, changes), (at * x1 + (1 - at) * x0, t, told))
        loss = (answer - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if (iteration + 1) % 50 == 0:
            print(f"iteration {iteration + 1} of {given.iterations}: loss {sum(recent) / len(recent):.4f}", flush=True)
            recent.clear()
    return {name: weight.detach().half() for name, weight in merged(weights, changes).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST's IDX files")
    parser.add_argument("--images", choices=IMAGES, required=True)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    card = json.loads(given.card.read_text())
    network = Replayed(torch.jit.load(given.card.parent / card["weights"]).eval())
    for name, weight in tuned(given, card, network).items():
        setattr(network, name, weight)
    inputs = torch.randn(3, *card["shape"]), torch.rand(3), torch.arange(3)
    given.out.mkdir(parents=True, exist_ok=True)
    out = given.out / f"{given.card.stem}-{given.images}"
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(network, inputs), out.with_suffix(".pt"))
    card.pop("features", None)
    out.with_suffix(".json").write_text(json.dumps({**card, "weights": f"{out.name}.pt"}, indent=2) + "\n")


if __name__ == "__main__":
    main()
