"""The shipped text-conditional digits: Python's samplers, `TorchField` and a loop in the manner of diffusers draw what
the program draws of the same noise, texts and scales."""

import os
import subprocess
from pathlib import Path

import bespoke_solver as bespoke
import numpy as np
import pytest
import torch
from bespoke_solver import BespokeScheduler, TorchField
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", ROOT / "target/release/bespoke"))
MODELS = ROOT / "models"
FILES = [MODELS / "conditions" / f"{name}.safetensors" for name in ("digits-text-9", "digits-text-others-11")]
SCALES = (1.0, 2.5, 4.0)
ROWS = 6


@pytest.fixture(scope="module")
def network():
    return torch.jit.load(MODELS / "digits-text.pt", map_location="cpu").eval()


@pytest.fixture(scope="module")
def theta(tmp_path_factory):
    knots = {"t": [(i / 8) ** 1.1 for i in range(9)], "s": [1 + 0.03 * i for i in range(9)]}
    knots |= {"t_dot": [1 + 0.05 * i for i in range(8)], "s_dot": [0.2 - 0.05 * i for i in range(8)]}
    path = tmp_path_factory.mktemp("theta") / "theta.json"
    theta = bespoke.Theta.parse({"format": "bespoke-theta", "version": 1, "family": "rk2", "steps": 4, **knots})
    theta.save(path)
    return theta, path


@pytest.fixture(scope="module")
def drawn(theta, tmp_path_factory):
    """Of each file of texts: noise, texts, scales, and the program's samples, a row each."""
    folder = tmp_path_factory.mktemp("drawn")
    found = []
    for k, file in enumerate(FILES):
        noise = np.random.default_rng(k).standard_normal((ROWS, 1, 8, 8)).astype(np.float32)
        np.save(folder / "noise.npy", noise)
        by_scale = []
        for scale in SCALES:
            subprocess.run(
                [PROGRAM, "sample", "--model", MODELS / "digits-text.json", "--solver", theta[1], "--conditions", file,
                 "--noise", folder / "noise.npy", "--guidance-scale", str(scale), "--out", folder / "samples.npy"],
                check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            by_scale.append(np.load(folder / "samples.npy"))
        rows = range(ROWS)
        samples = np.stack([by_scale[row % len(SCALES)][row] for row in rows])
        scales = np.array([SCALES[row % len(SCALES)] for row in rows], np.float32)
        found.append((noise, load_file(file)["text"][:ROWS], scales, samples))
    return found


def velocity(network, t, x, text, scale):
    """Guided, of rows with texts and scales of their own."""
    with torch.no_grad():
        given, nothing = network(x, t, text), network(x, t, torch.zeros_like(text))
    return nothing + scale.reshape(-1, 1, 1, 1) * (given - nothing)


def close(found, expected):
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() < 1e-5
    assert np.abs(expected).max() > 0.5


def test_a_sampler_draws_what_the_program_draws(network, theta, drawn):
    for noise, text, scale, expected in drawn:

        def of_torch(t, x):
            return velocity(network, t, x, text, torch.from_numpy(scale))

        close(bespoke.sample(theta[0], torch.from_numpy(noise), of_torch), expected)
        found = bespoke.sample(theta[0], noise, lambda t, x: of_torch(torch.tensor(t), torch.tensor(x)).numpy())
        close(found, expected)


def test_samples_of_any_text_and_scale_join_and_leave(network, theta, drawn):
    rows = [(file, row) for row in range(ROWS) for file in range(len(FILES))]
    sampler, active, done = bespoke.Sampler(theta[0]), [], {}
    while rows or active:
        if rows:
            file, row = rows.pop(0)
            sampler.join(torch.from_numpy(drawn[file][0][row : row + 1]))
            active.append((file, row))
        t, x = sampler.query()
        u = torch.empty_like(x)
        for file, (_, text, scale, _) in enumerate(drawn):
            own = [k for k, (of, _) in enumerate(active) if of == file]
            if own:
                places = [active[k][1] for k in own]
                u[own] = velocity(network, t[own], x[own], text[places], torch.from_numpy(scale[places]))
        sampler.update(u)
        for k in reversed(range(len(active))):
            if sampler.row(k).evaluations == sampler.row(k).nfe:
                done[active[k]] = sampler.leave(k)
                active[k] = active[-1]
                active.pop()
    for (file, row), found in done.items():
        close(found, drawn[file][3][row : row + 1])


def test_a_torch_field_is_given_its_texts_by_name(network, theta, drawn):
    for noise, text, scale, expected in drawn:
        for value in SCALES:
            rows = [row for row in range(ROWS) if scale[row] == value]
            field = TorchField(
                # Timesteps run from 1000, noise, to 0, and the answer is what diffusers' flow models give.
                lambda x, timestep, text: -network(x, 1 - timestep / 1000, text),
                FlowMatchEulerDiscreteScheduler().config,
                (1, 8, 8),
                conditions={"text": text},
                null={"text": torch.zeros_like(text[0])},
                guidance_scale=value,
            )
            found = bespoke.sample(theta[0], torch.from_numpy(noise[rows]), lambda t, x: field(t, x, torch.tensor(rows)))
            close(found, expected[rows])


def test_a_loop_of_diffusers_draws_what_the_program_draws(network, theta, drawn):
    for noise, text, scale, expected in drawn:
        scheduler = BespokeScheduler.from_config(FlowMatchEulerDiscreteScheduler().config, theta=theta[0])
        scheduler.set_timesteps(4)
        latents = torch.from_numpy(noise)
        for timestep in scheduler.timesteps:
            t = (1 - timestep / 1000).expand(ROWS)
            output = -velocity(network, t, latents, text, torch.from_numpy(scale))
            latents = scheduler.step(output, timestep, latents).prev_sample
        close(latents, expected)


def test_a_solver_is_learned_over_texts(network, theta, drawn):
    _, text, _, _ = drawn[0]

    def conditional(t, x, text):
        with torch.no_grad():
            return network(x, t, text)

    options = {"shape": [1, 8, 8], "steps": 3, "iterations": 6, "pool": 60, "validation": 60, "batch": 20}
    learned = bespoke.train(
        conditional, conditions={"text": text}, library="torch", progress=False, rtol=1e-3, atol=1e-3, **options
    )
    assert learned.training["validation"]["rmse"] < 0.8 * learned.training["start"]["rmse"]
