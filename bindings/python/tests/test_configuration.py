"""Every scheduler of diffusers and every key of its configuration: honoured, without meaning, or refused by name.

``python tests/test_configuration.py`` prints the table of the README.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from bespoke_solver import BespokeScheduler, solver
from bespoke_solver.configuration import KEYS, REFUSED, STOCHASTIC, TRAINING, UNDERSTOOD, understand
from bespoke_solver.replaced import named

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOWS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 700.0, "use_karras_sigmas": True}


def shipped() -> dict[str, list[str]]:
    """The keys of every scheduler class in diffusers' sources, those that need other packages too."""
    found: dict[str, list[str]] = {}
    for path in sorted((Path(diffusers.__file__).parent / "schedulers").glob("scheduling_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Scheduler"):
                inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
                if inits and any(getattr(base, "id", "") in ("SchedulerMixin", "ConfigMixin") for base in node.bases):
                    found[node.name] = [argument.arg for argument in inits[0].args.args if argument.arg != "self"]
    return found


SHIPPED = shipped()


def test_every_scheduler_is_understood_or_refused_and_every_key_known():
    assert len(SHIPPED) > 45
    assert set(SHIPPED) - UNDERSTOOD - set(REFUSED) == set(), "new in diffusers: add it to configuration.py"
    assert not UNDERSTOOD & set(REFUSED) and STOCHASTIC <= UNDERSTOOD
    for name in UNDERSTOOD:
        assert set(SHIPPED[name]) - set(KEYS) == set(), name
    assert {key for key, verdict in KEYS.items() if verdict == "model"} >= {key for key in TRAINING if key not in ("noise_path", "clock")}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_no_solver_replaces_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"the scheduler is {name}, which a solver cannot replace"):
        BespokeScheduler.from_config({"_class_name": name}, solver="euler")


def test_values_and_keys_that_cannot_be_honoured_are_named():
    def made(kind, **options):
        return BespokeScheduler.from_config(kind(**options), solver="unipc")

    with pytest.raises(ValueError, match="thresholding is True"):
        made(diffusers.DDIMScheduler, thresholding=True)
    with pytest.raises(ValueError, match="stochastic_sampling is True"):
        made(diffusers.FlowMatchEulerDiscreteScheduler, stochastic_sampling=True)
    with pytest.raises(ValueError, match="use_flow_sigmas False"):
        made(diffusers.UniPCMultistepScheduler, prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="new_key is 3: this key is not known"):
        BespokeScheduler.from_config({"_class_name": "DDIMScheduler", "new_key": 3}, solver="unipc")
    with pytest.raises(ValueError, match="the scheduler is MyScheduler, expected one of"):
        BespokeScheduler.from_config({"_class_name": "MyScheduler"}, solver="unipc")
    # One made by its constructor does not say its class; its keys do.
    with pytest.raises(ValueError, match="LCMScheduler|TCDScheduler"):
        BespokeScheduler.from_config(diffusers.LCMScheduler().config, solver="unipc")
    with pytest.raises(TypeError, match="thetta"):
        BespokeScheduler.from_config({}, thetta=3)
    with pytest.raises(ValueError, match="trained_betas hold a value that is not finite"):
        BespokeScheduler(solver="unipc", prediction_type="epsilon", trained_betas=[0.1, float("nan"), 0.2])


#: A scheduler, its settings, and the published solver that takes the same steps.
CASES = [
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "ddim"),
    ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler"),
    ("FlowMatchEulerDiscreteScheduler", {"use_exponential_sigmas": True, "shift_terminal": 0.1}, "euler"),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "euler"),
    ("LTXEulerAncestralRFScheduler", {}, None),
    ("FlowMatchHeunDiscreteScheduler", {}, None),
    ("DDIMScheduler", {"clip_sample": False, **BETAS}, "ddim"),
    ("DDIMScheduler", {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}, "ddim"),
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **BETAS}, "ddim"),
    ("DDIMScheduler", {"clip_sample": False, **ZERO, **BETAS}, "ddim"),
    ("CogVideoXDDIMScheduler", {"clip_sample": False, **ZERO, "snr_shift_scale": 2.0}, "ddim"),
    ("PNDMScheduler", {"skip_prk_steps": True, **BETAS}, None),
    ("EulerDiscreteScheduler", BETAS, "ddim"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, **BETAS}, "ddim"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "final_sigmas_type": "sigma_min", **BETAS}, "ddim"),
    ("EulerDiscreteScheduler", CONTINUOUS, "ddim"),
    ("EDMEulerScheduler", {}, "ddim"),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction", "sigma_data": 0.8}, "ddim"),
    ("EDMDPMSolverMultistepScheduler", {}, "dpm++2m"),
    ("DPMSolverMultistepScheduler", BETAS, "dpm++2m"),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, **BETAS}, "dpm++2m"),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True, **BETAS}, "dpm++2m"),
    ("DPMSolverMultistepScheduler", FLOWS, "dpm++2m"),
    ("UniPCMultistepScheduler", BETAS, "unipc"),
    ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", **BETAS}, "unipc"),
    ("UniPCMultistepScheduler", {**ZERO, **BETAS}, "unipc"),
    ("UniPCMultistepScheduler", FLOWS, "unipc"),
    ("DEISMultistepScheduler", BETAS, None),
    ("DPMSolverSinglestepScheduler", BETAS, None),
    ("HeunDiscreteScheduler", BETAS, None),
    ("KDPM2DiscreteScheduler", BETAS, None),
    ("IPNDMScheduler", {}, None),
]  # fmt: skip


def exact(scheduler: BespokeScheduler) -> Any:
    """The model of Gaussian data with mean 0.3 and deviation 0.6, as it was trained for the scheduler replaced."""
    convention = scheduler._convention

    def model(x: torch.Tensor, timestep: Any) -> torch.Tensor:
        at = convention.scalars(convention.time_of([float(timestep)]))[0]
        mean, deviation = 0.3 / convention.data_scale, 0.6 / convention.data_scale
        variance = (at.alpha * deviation) ** 2 + at.sigma**2
        data = mean + at.alpha * deviation**2 / variance * (x - at.alpha * mean)
        noise = (x - at.alpha * data) / at.sigma if at.sigma > 1e-9 else torch.zeros_like(x)
        made = {"flow": noise - data, "epsilon": noise, "v": at.alpha * noise - at.sigma * data, "x1": data}
        return convention.sign * made[convention.output]

    return model


def run(scheduler: Any, steps: int, x: torch.Tensor, model: Any) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(given, t), t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize(("name", "settings", "counterpart"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_a_solver_in_its_place_samples_the_same(name, settings, counterpart):
    try:
        own = getattr(diffusers, name)(**settings)
    except ImportError as error:
        pytest.fail(f"{name} needs another package: {error}")
    x = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    ours = BespokeScheduler.from_config(own, solver=counterpart or "unipc")
    assert ours.config.replaced["_class_name"] == name
    model = exact(ours)
    if counterpart is None:
        truth = 0.3 + 0.6 * x
        found = run(ours, 60, x, model)
        assert (found - truth).square().mean().sqrt() < 0.03  # what is left of the noise, and first-order starts
        return
    for steps in (10, 50):  # of 60, DDIM steps to other timesteps than it comes to next
        found, expected = run(ours, steps, x, model), run(own, steps, x, model)
        assert (found - expected).square().mean().sqrt() < 5e-3, steps


def test_defaults_are_as_good_as_the_scheduler_replaced():
    """dpm++2m in place of DPM++2M Karras was at 10 times its error on another grid."""
    own = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True, **BETAS)
    ours = BespokeScheduler.from_config(own.config, solver="dpm++2m")
    x = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model, truth = exact(ours), 0.3 + 0.6 * x
    errors = [float((run(s, 10, x, model) - truth).square().mean().sqrt()) for s in (own, ours)]
    assert errors[1] < 1.1 * errors[0]
    # One's own grid is NAME:GRID.
    uniform = BespokeScheduler.from_config(own.config, solver="dpm++2m:uniform")
    uniform.set_timesteps(10)
    expected = [stage.t for stage in solver("dpm++2m", 10, uniform._convention.path).stages()]
    assert np.allclose(uniform.timesteps.numpy(), uniform._convention.timestep_at(expected), rtol=1e-5)


def test_a_model_of_zero_terminal_snr_is_sampled_to_the_end():
    """alpha(999) is 0, not .068: the error stayed at .025 at 200 steps."""
    own = diffusers.DDIMScheduler(clip_sample=False, **ZERO, **BETAS)
    ours = BespokeScheduler.from_config(own.config, solver="unipc")
    x = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = run(ours, 200, x, exact(ours))
    assert (found - (0.3 + 0.6 * x)).square().mean().sqrt() < 6e-3
    alphas = ours.alphas_cumprod
    assert alphas[-1] == 0 and torch.allclose(alphas, own.alphas_cumprod, atol=1e-5)


def test_shifts_and_custom_times_reach_published_solvers_and_not_thetas():
    from test_diffusers import bent

    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.3, max_image_seq_len=2048)
    ours = BespokeScheduler.from_config(own.config, solver="euler")
    for config in (ours.config, BespokeScheduler.from_config(ours.config, theta=bent()).config):
        # Pipelines compute mu by these.
        assert (config.base_shift, config.max_image_seq_len, config.use_dynamic_shifting) == (0.3, 2048, True)
    for given in [{"num_inference_steps": 6, "mu": 0.8}, {"sigmas": [1.0, 0.7, 0.2], "mu": 1.1}]:
        own.set_timesteps(**given)
        ours.set_timesteps(**given)
        assert torch.allclose(ours.timesteps, own.timesteps, rtol=1e-5) and torch.allclose(ours.sigmas, own.sigmas, atol=1e-6)
    learned = BespokeScheduler.from_config(own, theta=bent())
    learned.set_timesteps(sigmas=[1.0, 0.7, 0.2], mu=0.8)
    assert len(learned.timesteps) == 6 and learned.order == 1  # the pipeline counts what comes back
    with pytest.raises(ValueError, match="timesteps are given, expected none: a theta has learned its times"):
        learned.set_timesteps(timesteps=[900, 700, 100])
    learned.set_timesteps(timesteps=[999, 500, 1])  # as CogView4's pipeline does by itself
    assert len(learned.timesteps) == 6 and learned.order == 1
    with pytest.raises(ValueError, match="has a grid of its own"):
        BespokeScheduler.from_config(own, solver="euler:quadratic").set_timesteps(sigmas=[1.0, 0.5])
    karras = BespokeScheduler.from_config(diffusers.EulerDiscreteScheduler(**BETAS), solver="ddim")
    karras.set_timesteps(timesteps=[900, 500, 100])
    assert torch.allclose(karras.timesteps, torch.tensor([900.0, 500.0, 100.0]), atol=0.5)


def test_timesteps_beside_sigmas_are_the_models_clock():
    """CogView4's model is given the timestep of a noise level before its scheduler shifts it."""
    from test_diffusers import bent

    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
    times = np.linspace(1000, 1, 6).astype(np.int64).astype(np.float32)
    given = {"timesteps": times.tolist(), "sigmas": (times / 1000).tolist(), "mu": 0.4}
    own.set_timesteps(**given)
    ours = BespokeScheduler.from_config(own, solver="euler")
    ours.set_timesteps(**given)
    assert torch.allclose(ours.timesteps, own.timesteps, atol=0.5) and torch.allclose(ours.sigmas, own.sigmas, atol=1e-6)
    learned = BespokeScheduler.from_config(own, theta=bent(6))
    learned.set_timesteps(**given)
    # sigma = mu / (mu + 1 / before - 1)
    before = learned.timesteps / 1000
    assert torch.allclose(learned.sigmas[:-1], before * 0.4 / (1 + (0.4 - 1) * before), atol=2e-3)
    with pytest.raises(ValueError, match="timesteps and sigmas are both given"):
        ours.set_timesteps(timesteps=[900.0, 100.0], sigmas=[0.5, 0.1], mu=0.4)


def test_configurations_go_there_and_back():
    from test_diffusers import bent

    own = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True, **BETAS)
    learned = BespokeScheduler.from_config(own.config, theta=bent())
    published = BespokeScheduler.from_config(learned.config, solver="dpm++2m")
    assert published.config.theta is None and published.config.replaced["use_karras_sigmas"]
    back = BespokeScheduler.from_config(published.config, theta=bent())
    assert back.config.solver is None and back.config.theta == learned.config.theta
    assert understand(back.config) == understand(learned.config) == understand(named(own))
    # What belongs to the other scheduler is inside ``replaced`` alone.
    assert not {"use_karras_sigmas", "solver_order", "timestep_spacing"} & set(learned.config)
    other = diffusers.DPMSolverMultistepScheduler.from_config(learned.config)
    assert other.config.beta_schedule == "scaled_linear" and other.config.beta_end == 0.012


def test_the_readme_has_the_table(capsys):
    table()
    printed = capsys.readouterr().out.strip()
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert printed in readme, "python tests/test_configuration.py prints it"


def table() -> None:
    print("| scheduler | of the model | of its grid, which published solvers take over | of its own solver | else |")
    print("| --- | --- | --- | --- | --- |")
    for name, keys in sorted(SHIPPED.items()):
        if name in REFUSED:
            print(f"| {name} | | | | refused: {REFUSED[name]} |")
            continue
        columns = [", ".join(f"`{key}`" for key in keys if KEYS[key] == kind) for kind in ("model", "grid", "solver")]
        notes = [f"`{key}` is not done" for key in keys if KEYS[key] == "left out"]
        notes += [f"`{key}` is refused" for key in keys if KEYS[key] == "refused"]
        notes += ["its noise is left out"] if name in STOCHASTIC else []
        print(f"| {name} | {' | '.join(columns)} | {'; '.join(notes)} |")


if __name__ == "__main__":
    table()
