"""Every pipeline of `gallery.py` with a solver in place of its scheduler: one table of what is checked.

``python tests/test_gallery.py`` prints the table of the README.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import logging
from typing import Any

import bespoke_solver as bespoke
import diffusers
import pytest
import torch
from bespoke_solver import BespokeScheduler
from bespoke_solver.pipeline_field import PipelineField
from gallery import GALLERY, Entry, build

#: Evaluations of the comparison, what training has for each pipeline in the test, and in the README's table.
NFE = 8
TRAINING = {"family": "rk2", "steps": NFE // 2, "pool": 8, "validation": 8, "batch": 8, "iterations": 4, "rtol": 1e-4, "atol": 1e-4}
THOROUGH = {**TRAINING, "pool": 16, "validation": 16, "batch": 16, "iterations": 8}
#: The solver that agrees with any other at many steps, and how many.
MANY = 40
#: Of each scheduler that comes with a pipeline, the published solver that takes the same steps.
SAME = {
    "FlowMatchEulerDiscreteScheduler": "ddim",
    "EulerDiscreteScheduler": "ddim",
    "DDIMScheduler": "ddim",
    "CogVideoXDDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpm++2m",
    "UniPCMultistepScheduler": "unipc",
}
#: How far the same steps may lie apart, as a part of the root mean square: UniPC gives models of flows whole timesteps.
APART = 1e-2


@dataclasses.dataclass
class Case:
    """A pipeline, its noise, and what it makes of it."""

    entry: Entry
    pipeline: Any
    field: PipelineField
    noise: torch.Tensor
    exact: torch.Tensor

    def run(self, scheduler: Any, steps: int, pipeline: Any = None, **more: Any) -> torch.Tensor:
        pipeline = copy.copy(pipeline or self.pipeline)
        pipeline.scheduler = scheduler
        call = {**self.field.call((0,)), "num_inference_steps": steps, "output_type": "latent", **more}
        call["generator"] = torch.Generator().manual_seed(0)
        # What goes on from an image begins with that, noised.
        return samples(pipeline, scheduler, call, None if self.entry.image else self.noise)

    def error(self, found: torch.Tensor) -> float:
        return rmse(found, self.exact)


def samples(pipeline: Any, scheduler: Any, call: dict[str, Any], noise: torch.Tensor | None) -> torch.Tensor:
    """What the last step of a pipeline's scheduler answers; it begins with ``noise``, where there is any."""
    found: list[torch.Tensor] = []
    pipeline.scheduler = scheduler
    step = scheduler.step

    @functools.wraps(step)
    def kept(model_output: Any, timestep: Any, sample: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if noise is not None and not found:
            start = noise.to(sample.dtype) * getattr(scheduler, "init_noise_sigma", 1.0)
            sample.copy_(torch.cat([start] * (len(sample) // len(start))))
        answer = step(model_output, timestep, sample, *rest, **options)
        found.append(answer[0])
        return answer

    scheduler.step = kept
    accepted = set(inspect.signature(pipeline.__call__).parameters)
    if noise is not None and "latents" in accepted:
        call = {**call, "latents": noise}
    try:
        pipeline(**{key: value for key, value in call.items() if key in accepted})
    finally:
        scheduler.step = step
    return found[-1][:1].float()


def rmse(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean().sqrt())


@functools.lru_cache(maxsize=1)
def case(name: str) -> Case:
    torch.set_num_threads(1)
    entry, pipeline = GALLERY[name], build(name)
    field = PipelineField(pipeline, entry.prompts(), entry.calls())
    noise = torch.randn(1, *field.shape, generator=torch.Generator().manual_seed(3))
    exact = bespoke.sample(bespoke.solver("rk4", 120), noise, lambda t, x: field(t, x, torch.zeros(1, dtype=torch.long)))
    return Case(entry, pipeline, field, noise, exact)


def same(pipeline: Any) -> tuple[Any, BespokeScheduler]:
    """A scheduler of diffusers' that a published solver is, for the pipeline's model, and that solver."""
    own = pipeline.scheduler
    if type(own).__name__ not in SAME:
        # PNDM's start and DDPM's noise have no counterpart.
        own = diffusers_ddim(own)
    return own, BespokeScheduler.from_config(own, solver=SAME[type(own).__name__])


def diffusers_ddim(scheduler: Any) -> Any:
    return diffusers.DDIMScheduler.from_config(scheduler.config, clip_sample=False)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return rmse(one, other) / float(other.square().mean().sqrt())


def halved_once(at: int) -> Any:
    """A callback that edits the sample after one step, by a new tensor."""

    def callback(pipeline: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": given["latents"] * 0.5} if step == at else {}

    return callback


def has_callback(pipeline: Any) -> bool:
    return "callback_on_step_end" in inspect.signature(pipeline.__call__).parameters


def outcome(name: str, training: dict[str, Any]) -> dict[str, Any]:
    """What is checked of a pipeline, as numbers."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    made = case(name)
    own, ours = same(made.pipeline)
    found: dict[str, Any] = {"agrees": apart(made.run(ours, MANY), made.run(own, MANY))}
    if not made.entry.image:
        theta = bespoke.train(made.field, progress=False, **training)
        learned = BespokeScheduler.from_config(own, theta=theta)
        size = float(made.exact.square().mean().sqrt())
        found["fit"] = made.error(made.run(learned, theta.steps)) / size
        found["own"] = made.error(made.run(own, NFE)) / size
        found["unipc"] = made.error(made.run(BespokeScheduler.from_config(own, solver="unipc"), NFE)) / size
    else:
        for strength in (0.3, 0.6, 0.9):
            more = {"strength": strength}
            found[f"strength {strength}"] = apart(made.run(ours, 20, **more), made.run(own, 20, **more))
            found[f"evaluations {strength}"] = evaluations(made, strength)
    if has_callback(made.pipeline):
        if "UniPC" in type(own).__name__:
            # Its corrector goes on from its own last sample, whatever was done to it.
            own = diffusers.DPMSolverMultistepScheduler.from_config(own.config)
            ours = BespokeScheduler.from_config(own, solver="dpm++2m")
        more = {"callback_on_step_end": halved_once(10), "callback_on_step_end_tensor_inputs": ["latents"]}
        found["callback"] = apart(made.run(ours, MANY, **more), made.run(own, MANY, **more))
    made.field.close()
    return found


def evaluations(made: Case, strength: float) -> bool:
    """Whether a theta and a multistep solver make as many evaluations as the pipeline's own scheduler, to finite samples."""
    theta = BespokeScheduler.from_config(made.pipeline.scheduler, theta=identity(NFE))
    multistep = BespokeScheduler.from_config(made.pipeline.scheduler, solver="dpm++2m")

    def count(scheduler: Any, steps: int) -> int:
        counted: list[int] = []
        step = scheduler.step

        @functools.wraps(step)
        def stepped(*arguments: Any, **options: Any) -> Any:
            counted.append(1)
            return step(*arguments, **options)

        scheduler.step = stepped
        sample = made.run(scheduler, steps, strength=strength)
        del scheduler.step
        return len(counted) if sample.isfinite().all() else -1

    own, half, whole = same(made.pipeline)[0], count(theta, NFE // 2), count(multistep, NFE)
    # Pipelines that hand over sigmas count evaluations, the others a theta's steps.
    return whole == count(own, NFE) and half in (2 * count(own, NFE // 2), count(own, NFE))


def identity(nfe: int) -> bespoke.Theta:
    """The midpoint rule, as a theta."""
    return bespoke.Theta.parse({
        "format": "bespoke-theta", "version": 1, "family": "rk2", "steps": nfe // 2, "t": [i / nfe for i in range(nfe + 1)],
        "t_dot": [1.0] * nfe, "s": [1.0] * (nfe + 1), "s_dot": [0.0] * nfe,
    })  # fmt: skip


@pytest.mark.parametrize("name", list(GALLERY))
def test_a_pipeline_with_a_solver(name: str) -> None:
    found = outcome(name, TRAINING)
    assert found["agrees"] < APART, found
    assert found.get("callback", 0.0) < APART, found
    if "fit" in found:
        assert found["fit"] < found["own"], found
    for strength in (0.3, 0.6, 0.9):
        assert found.get(f"strength {strength}", 0.0) < APART and found.get(f"evaluations {strength}", True), found


def table() -> None:
    """The README's: relative to the root mean square of the samples."""
    print(f"| pipeline | agrees with its scheduler | own, {NFE} evaluations | unipc | fitted | strengths .3 .6 .9 | edited sample |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in GALLERY:
        print(row(name, outcome(name, THOROUGH)), flush=True)


def row(name: str, found: dict[str, Any]) -> str:
    def small(key: str) -> str:
        return f"{found[key]:.0e}".replace("0e+00", "0") if key in found else ""

    errors = [f"{found[key]:.4f}" if key in found else "" for key in ("own", "unipc", "fit")]
    strengths = " ".join(small(f"strength {s}") for s in (0.3, 0.6, 0.9)).strip()
    return f"| {name} | {small('agrees')} | {' | '.join(errors)} | {strengths} | {small('callback')} |"


if __name__ == "__main__":
    table()
