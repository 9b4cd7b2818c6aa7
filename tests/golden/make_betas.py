"""alpha^2 of discrete training, step by step: betas.json, for tests/all/schedulers.rs.

    python -m venv venv && venv/bin/pip install torch==2.11.0 diffusers==0.42.1 numpy
    venv/bin/python tests/golden/make_betas.py

In float64 by the published formulas, and each compared here with what diffusers' DDIMScheduler has in float32.
"""

import json
import math
import pathlib

import diffusers
import numpy as np

GIVEN = [0.02, 0.05, 0.1, 0.2, 0.4, 0.6]
CASES = [
    {"schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps": 1000},
    {"schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps": 1000},
    {"schedule": "squaredcos_cap_v2", "steps": 1000},
    {"schedule": "squaredcos_cap_v2", "steps": 50},
    {
        "schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps": 1000,
        "rescale_zero_terminal_snr": True,
    },
    {"betas": GIVEN},
    {"betas": GIVEN, "rescale_zero_terminal_snr": True},
]


def betas_of(case):
    if "betas" in case:
        return np.array(case["betas"])
    count = case["steps"]
    if case["schedule"] == "linear":
        return np.linspace(case["beta_start"], case["beta_end"], count)
    if case["schedule"] == "scaled_linear":
        return np.linspace(case["beta_start"] ** 0.5, case["beta_end"] ** 0.5, count) ** 2
    bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return np.array([min(1 - after / before, 0.999) for before, after in zip(bar, bar[1:], strict=False)])


def squares_of(case):
    squares = np.cumprod(1 - betas_of(case))
    if case.get("rescale_zero_terminal_snr"):
        alphas = np.sqrt(squares)
        squares = ((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])) ** 2
    return squares


def diffusers_squares(case):
    options = {"rescale_betas_zero_snr": case.get("rescale_zero_terminal_snr", False)}
    if "betas" in case:
        options["trained_betas"] = case["betas"]
        options["num_train_timesteps"] = len(case["betas"])
    else:
        options["beta_schedule"] = case["schedule"]
        options["num_train_timesteps"] = case["steps"]
        options.update({key: case[key] for key in ("beta_start", "beta_end") if key in case})
    return diffusers.DDIMScheduler(**options).alphas_cumprod.numpy()


golden = []
for case in CASES:
    squares = squares_of(case)
    apart = np.abs(squares - diffusers_squares(case)).max()
    assert apart < 2e-6, (case, apart)
    kept = sorted({*range(min(3, len(squares))), *range(0, len(squares), max(1, len(squares) // 10)), len(squares) - 1})
    golden.append(
        {
            "scheduler": {"name": "betas", **case},
            "steps": len(squares),
            "at": kept,
            "alphas_cumprod": squares[kept].tolist(),
        }
    )
pathlib.Path(__file__).with_name("betas.json").write_text(json.dumps(golden, indent=1) + "\n")
