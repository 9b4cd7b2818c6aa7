#!/usr/bin/env python3
"""Writes a Gaussian mixture of samples [3, 256, 256] and its card into a folder: an analytic model
whose samples are as large as a real one's, for measuring memory.

    scripts/make-large-mixture.py FOLDER [MODES]
"""

import json
import math
import pathlib
import sys

CHANNELS, SIZE = 3, 256


def mean(mode):
    """A picture of slow waves, in [-0.8, 0.8]."""
    values = []
    for channel in range(CHANNELS):
        for row in range(SIZE):
            for column in range(SIZE):
                phase = (mode + 1) * (row * (channel + 1) + 2 * column) * math.pi / SIZE
                values.append(round(0.8 * math.sin(phase + mode), 4))
    return values


def main():
    folder = pathlib.Path(sys.argv[1])
    modes = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder.mkdir(parents=True, exist_ok=True)
    mixture = {"std": 0.3, "means": [mean(mode) for mode in range(modes)]}
    (folder / "large-modes.json").write_text(json.dumps(mixture))
    card = {
        "format": "bespoke-model",
        "version": 1,
        "weights": "large-modes.json",
        "runtime": "mixture",
        "shape": [CHANNELS, SIZE, SIZE],
        "output": "velocity",
        "scheduler": {"name": "fm-ot"},
    }
    (folder / "large.json").write_text(json.dumps(card, indent=2) + "\n")


main()
