#!/usr/bin/env python3
"""Makes models/digits-mixture-modes.json: ten digits of each class as the modes of a Gaussian mixture.

    python3 scripts/make-mixture.py      (needs numpy; reads data/, writes models/)
"""

import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PER_CLASS = 10
STD = 0.2

images = np.load(ROOT / "data/digits-images.npy").reshape(-1, 64)
labels = np.load(ROOT / "data/digits-labels.npy")
rows = np.concatenate([np.flatnonzero(labels == k)[:PER_CLASS] for k in range(10)])
document = {
    "std": STD,
    # 0 ... 16 to -1 ... 1, exactly.
    "means": (images[rows] / 8.0 - 1.0).tolist(),
    "class": labels[rows].tolist(),
}
(ROOT / "models/digits-mixture-modes.json").write_text(json.dumps(document) + "\n")
