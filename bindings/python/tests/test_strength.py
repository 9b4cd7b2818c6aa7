"""A solve that begins at a ``strength``: at the noise level of the scheduler replaced, whatever solves from there.

``python tests/test_strength.py`` prints the README's table.
"""

from __future__ import annotations

import copy
import functools
import threading
from pathlib import Path
from typing import Any

import bespoke_solver as bespoke
import diffusers
import numpy as np
import pytest
import torch
from bespoke_solver import BespokeScheduler
from gallery import BETAS, GALLERY, build
from test_solves import learned_ns, plain

STRENGTHS = (0.3, 0.6, 0.9)
#: Three normal distributions of four numbers: all of the path is known.
_SEEDED = np.random.default_rng(0)
MEANS, DEVIATIONS = 1.2 * _SEEDED.standard_normal((3, 4)), np.array([0.15, 0.3, 0.1])
FLOW = diffusers.FlowMatchEulerDiscreteScheduler()
SHIFTED = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
DDIM = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **BETAS)
OWN = {"flow": FLOW, "flow, shift 3": SHIFTED, "epsilon": DDIM}
#: Evaluations of the whole solve.
NFE = 10


def expected(x: np.ndarray, alpha: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The means of data and noise that may have become ``x``, ``[batch, 4]``."""
    variances = (alpha * DEVIATIONS) ** 2 + sigma**2
    apart = x[:, None] - alpha * MEANS
    logs = -(apart**2).sum(-1) / (2 * variances) - 2 * np.log(variances)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    data = MEANS + (alpha * DEVIATIONS**2 / variances)[:, None] * apart
    noise = (sigma / variances)[:, None] * apart
    return (weights[..., None] * data).sum(1), (weights[..., None] * noise).sum(1)


def prediction(convention: Any, x: np.ndarray, at: Any) -> np.ndarray:
    """What the model of ``convention`` answers, at the scalars of a time."""
    data, noise = expected(x, at.alpha, at.sigma)
    return {"flow": noise - data, "epsilon": noise}[convention.output]


def velocity(convention: Any, t: float, x: np.ndarray) -> np.ndarray:
    at = convention.scalars([t])[0]
    return at.x * x + at.output * prediction(convention, x, at)


def exact(convention: Any, begin: float, x: np.ndarray, steps: int = 60) -> np.ndarray:
    """The end of the path through ``x`` at solver time ``begin``, by the classical Runge-Kutta method."""
    length = 1 - begin
    theta = bespoke.solver("rk4", 4 * steps)
    return bespoke.sample(theta, x, lambda t, y: length * velocity(convention, begin + length * float(t[0]), y))


@functools.cache
def theta(kind: str, family: str) -> bespoke.Theta:
    """Learned for the whole solve."""
    convention = BespokeScheduler.from_config(OWN[kind], solver="ddim")._convention

    def field(t: np.ndarray, x: np.ndarray) -> np.ndarray:
        u = np.empty_like(x)
        for time in np.unique(t):
            u[t == time] = velocity(convention, float(time), x[t == time].astype(np.float64))
        return u

    size = {"pool": 200, "validation": 100, "batch": 200, "rtol": 1e-4, "atol": 1e-4}
    return bespoke.train(field, shape=[4], family=family, nfe=NFE, iterations=16, progress=False, **size)


def solved(scheduler: Any, convention: Any, steps: int, strength: float) -> tuple[float, int, float]:
    """As an image-to-image pipeline does: the level it begins at, its evaluations, and its distance from the exact end."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    skipped = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    generator = np.random.default_rng(5)
    parts = generator.integers(0, 3, 400)
    data = torch.from_numpy(MEANS[parts] + DEVIATIONS[parts, None] * generator.standard_normal((400, 4)))
    x = noised(scheduler, data, torch.from_numpy(generator.standard_normal((400, 4))), timesteps[:1].repeat(400))
    begin = float(convention.time_of([float(timesteps[0])])[0])
    end = exact(convention, begin, x.numpy())
    for t in timesteps:
        at = convention.scalars(convention.time_of([float(t)]))[0]
        x = scheduler.step(torch.from_numpy(prediction(convention, x.numpy(), at)), t, x).prev_sample
    error = float(np.sqrt(((x.numpy() - end) ** 2).mean(1)).mean())
    return float(convention.levels_of([begin])[0]), len(timesteps), error


def noised(scheduler: Any, data: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(data, timesteps, noise)
    return scheduler.add_noise(data, noise, timesteps)


def outcome(kind: str, what: str) -> tuple[float, list[tuple[float, float, int, float]]]:
    """The error of the whole solve; then the level of the scheduler replaced, ours, evaluations and error by strength."""
    own = OWN[kind]
    learned = what in ("rk1", "rk2", "ns")
    ours = BespokeScheduler.from_config(own, **({"theta": theta(kind, what)} if learned else {"solver": what}))
    steps = NFE // 2 if what == "rk2" else NFE
    convention = ours._convention
    whole = solved(ours, convention, steps, 1.0)[2]
    rows = []
    for strength in STRENGTHS:
        level = solved(own, convention, steps, strength)[0]
        rows.append((level, *solved(ours, convention, steps, strength)))
    return whole, rows


#: Errors of solves that begin at a strength, as parts of those of the scheduler replaced.
WORST = {"rk1": 0.8, "rk2": 0.8, "ns": 1.3, "ddim": 1 + 1e-3}


@pytest.mark.parametrize("what", list(WORST))
@pytest.mark.parametrize("kind", ["flow, shift 3", "epsilon"])
def test_a_solve_begins_at_the_level_of_the_scheduler_replaced(kind: str, what: str) -> None:
    """It began at the level of the theta's own evaluation, and an ns theta's times, where two nearly coincide, ended in an error of 26."""
    rows = outcome(kind, what)[1]
    steps, per_step = (NFE // 2, 2) if what == "rk2" else (NFE, 1)
    for strength, (own, ours, count, error) in zip(STRENGTHS, rows):
        assert ours == pytest.approx(own, rel=1e-5) and count == per_step * int(steps * strength), strength
        if what != "rk2":  # whose scheduler replaced makes half as many evaluations
            assert error < WORST[what] * solved(OWN[kind], _convention(kind), steps, strength)[2], strength


def _convention(kind: str) -> Any:
    return BespokeScheduler.from_config(OWN[kind], solver="ddim")._convention


def beginning(name: str, scheduler: Any, steps: int, strength: float) -> tuple[float, torch.Tensor, int]:
    """Of a pipeline of the gallery: the first timestep, the sample that its model is given there, and its steps."""
    entry, seen = GALLERY[name], []
    step, scaled = scheduler.step, getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)

    def recorded(model_output: Any, timestep: Any, sample: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if not seen:
            seen.append((float(timestep), scaled(sample, timestep).clone()))
        seen.append(step(model_output, timestep, sample, *rest, **options))
        return seen[-1]

    pipeline = build(name)
    pipeline.scheduler, scheduler.step = scheduler, recorded
    prompts = {key: value[:1] for key, value in (entry.prompts() or {}).items()}
    call = {**prompts, **entry.calls(), "strength": strength, "num_inference_steps": steps, "output_type": "latent"}
    pipeline(**call, generator=torch.Generator().manual_seed(1))
    del scheduler.step
    return *seen[0], len(seen) - 1


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", [name for name, entry in GALLERY.items() if entry.image])
def test_pipelines_begin_where_their_own_scheduler_does(name: str, strength: float) -> None:
    own = build(name).scheduler
    steps = 10
    timestep, sample, _ = beginning(name, own, steps, strength)
    solvers = [{"theta": plain(steps, "rk1")}, {"theta": plain(steps)}, {"theta": learned_ns(steps)}]
    # Flux hands over sigmas, which a grid of one's own refuses.
    own_grids = [] if name.startswith("Flux") else [{"solver": "unipc:uniform"}, {"solver": "heun"}]
    for options in [*solvers, {"solver": "dpm++2m"}, *own_grids]:
        ours = BespokeScheduler.from_config(own, **options)
        found, noisy, count = beginning(name, ours, steps, strength)
        assert found == pytest.approx(timestep, rel=1e-4), options
        assert float((noisy - sample).abs().max()) < 1e-3 * float(sample.abs().max()), options
        # Pipelines that hand over sigmas count evaluations, the others a theta's steps.
        whole = 2 * steps if options == solvers[1] else steps
        skipped = whole - whole * strength
        assert count in {whole - int(skipped + 1e-9), whole - whole // steps * (steps - int(steps * strength))}, options


def test_what_begins_is_a_solve_and_not_a_time_of_training() -> None:
    scheduler = BespokeScheduler.from_config(SHIFTED, theta=plain(5))
    own, data, noise = scheduler.timesteps.clone(), torch.ones(2, 4), torch.zeros(2, 4)
    rest = scheduler.timesteps[4:]
    # Times of training, times that differ, the first, and where the pipeline says that it begins elsewhere.
    for timesteps in ([321.0, 321.0], [own[4], own[6]], [own[0], own[0]]):
        scheduler.add_noise(data, noise, torch.tensor(timesteps))
        assert torch.equal(scheduler.timesteps, own)
    scheduler.set_begin_index(2)
    scheduler.add_noise(data, noise, own[4].repeat(2))
    assert torch.equal(scheduler.timesteps, own)
    scheduler.set_timesteps(5)
    rest = scheduler.timesteps[4:]
    # Shift 3 after 2 of 5 steps: 3 s / (1 + 2 s) for s = .6 of diffusers' 1000, 800.2, 600.4, ...
    made = scheduler.add_noise(data, noise, rest[:1].repeat(2))
    share = float(diffusers_sigma(2, 5))
    assert float(rest[0]) == pytest.approx(1000 * share, rel=1e-5) and torch.allclose(made, torch.tensor(1 - share))
    assert torch.equal(scheduler.timesteps[:4], own[:4]) and float(scheduler.sigmas[4]) == pytest.approx(share, rel=1e-5)
    # A second image, and a copy; what was told before the beginning is no timestep any more.
    assert torch.allclose(scheduler.add_noise(data, noise, own[4].repeat(2)), made)
    copied = copy.deepcopy(scheduler)
    assert torch.equal(copied.timesteps, scheduler.timesteps) and copied.timesteps.data_ptr() != scheduler.timesteps.data_ptr()
    with pytest.raises(ValueError, match="expected one of timesteps"):
        scheduler.step(data, float(own[4]), data)
    # A solve from the start is the whole one.
    scheduler.step(data, scheduler.timesteps[0], data)
    assert torch.equal(scheduler.timesteps, own)
    # Another thread's are its own.
    scheduler.set_timesteps(5)
    scheduler.add_noise(data, noise, own[4].repeat(2))
    elsewhere: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: elsewhere.append(scheduler.timesteps))
    thread.start()
    thread.join()
    assert torch.equal(elsewhere[0], own) and not torch.equal(scheduler.timesteps, own)


def diffusers_sigma(index: int, steps: int) -> torch.Tensor:
    scheduler = copy.deepcopy(SHIFTED)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas[index]


def test_without_a_scheduler_replaced_a_strength_is_of_the_solvers_own_steps() -> None:
    scheduler = BespokeScheduler(theta=plain(5))
    own, ones = scheduler.timesteps.clone(), torch.ones(1, 4)
    made = scheduler.add_noise(ones, 0 * ones, own[4:5])
    assert torch.equal(scheduler.timesteps, own) and torch.allclose(made, 1 - own[4] / 1000)


@pytest.mark.parametrize("k", range(1, 8))
def test_times_that_coincide_or_fall_are_begun_at(k: int) -> None:
    """A theta of full rows went on as UniPC on its times: an error of 5 to 26 where two nearly coincide, refused where they fall."""
    times = [0.0, 0.2, 0.3, 0.3 + 1e-5, 0.5, 0.45, 0.7, 0.9]
    ends = [*times[1:], 1.0]
    rows = [[0.0] * i + [ends[i] - times[i]] for i in range(8)]
    for i in range(1, 8):
        rows[i][:i] = rows[i - 1]
    document = {"format": "bespoke-theta", "version": 1, "family": "ns", "steps": 8, "t": times, "a": [1.0] * 8, "b": rows}
    scheduler = BespokeScheduler.from_config(FLOW, theta=bespoke.Theta.parse(document))
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((200, 4)))
    begin = times[k]
    end = exact(scheduler._convention, begin, x.numpy())
    for t in scheduler.timesteps[k:]:
        at = scheduler._convention.scalars(scheduler._convention.time_of([float(t)]))[0]
        x = scheduler.step(torch.from_numpy(prediction(scheduler._convention, x.numpy(), at)), t, x).prev_sample
    assert float(np.sqrt(((x.numpy() - end) ** 2).mean())) < 0.25


def test_a_solve_goes_on_from_the_level_at_which_its_noise_was_added() -> None:
    """With so many evaluations that little else is left of an error, in a pipeline that keeps a mask, too."""
    for kind, own in (("flow, shift 3", SHIFTED), ("epsilon", DDIM)):
        for theta_of in (plain(80), plain(160, "rk1"), learned_ns(160)):
            ours = BespokeScheduler.from_config(own, theta=theta_of)
            for strength in (0.35, 0.8):
                _, _, error = solved(ours, _convention(kind), theta_of.steps, strength)
                assert error < 0.015, (kind, theta_of, strength, error)


def test_the_readme_has_the_table_of_these_models() -> None:
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    rows = text.split("<!-- strength -->")[1].split("<!-- end strength -->")[0].strip().splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {kind}", str(s)] for kind in OWN for s in (1, *STRENGTHS)]
    for row in rows:
        kind, strength, begins, error = row.strip("| ").split(" | ")[:4]
        if float(strength) < 1:
            level, _, found = solved(OWN[kind], _convention(kind), NFE, float(strength))
            assert float(begins) == pytest.approx(level, abs=1e-3) and float(error) == pytest.approx(found, abs=2e-4)


def table() -> None:
    """The README's."""
    names = ["rk1", "rk2", "ns", "ddim", "dpm++2m", "unipc"]
    print("| model | strength | begins at | own scheduler | " + " | ".join(names) + " |")
    print("| --- " * (4 + len(names)) + "|")
    for kind, own in OWN.items():
        found = {name: outcome(kind, name) for name in names}
        convention = BespokeScheduler.from_config(own, solver="ddim")._convention
        wholes = [solved(own, convention, NFE, 1.0)[2], *(found[name][0] for name in names)]
        print(f"| {kind} | 1 | | " + " | ".join(f"{error:.4f}" for error in wholes) + " |")
        for i, strength in enumerate(STRENGTHS):
            level, _, error = solved(own, convention, NFE, strength)
            errors = [error, *(found[name][1][i][3] for name in names)]
            print(f"| {kind} | {strength} | {level:.3f} | " + " | ".join(f"{error:.4f}" for error in errors) + " |", flush=True)


if __name__ == "__main__":
    table()
