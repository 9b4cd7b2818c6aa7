"""The scheduler in diffusers' pipelines, and training on torch modules."""

import copy
import json
import os
import pickle
import subprocess
import threading
from pathlib import Path

import bespoke_solver as bespoke
import numpy as np
import pytest
import torch
from bespoke_solver import BespokeScheduler, TorchField
from bespoke_solver.fitting import field_of
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from digits import conditions, make_unet

PROGRAM = Path(os.environ.get("BESPOKE_PROGRAM", Path(__file__).resolve().parents[3] / "target/release/bespoke"))
LABELS = [3, 3, 3, 3]
KINDS = ["flow", "vp"]


def noises(count=4, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def bent(steps=3, family="rk2"):
    """A theta away from the identity."""
    knots = steps * (2 if family == "rk2" else 1)
    t = [(i / knots) ** 1.1 for i in range(knots + 1)]
    return bespoke.Theta.parse(
        {
            "format": "bespoke-theta",
            "version": 1,
            "family": family,
            "steps": steps,
            "t": t,
            "t_dot": [1 + 0.1 * i for i in range(knots)],
            "s": [1 + 0.05 * i for i in range(knots + 1)],
            "s_dot": [0.2 - 0.05 * i for i in range(knots)],
        }
    )


def output(timestep, sample):
    """A model of no network."""
    return torch.tanh(sample) * (0.5 + float(timestep) / 2000) - 0.1 * sample


def run(scheduler, sample, steps=None, between=lambda sample: sample):
    if steps is not None:
        scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        sample = between(scheduler.step(output(t, sample), t, sample).prev_sample)
    return sample


def with_config(config, **options):
    return BespokeScheduler.from_config(config, **options)


@pytest.mark.parametrize(
    "config",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0).config,
        DDPMScheduler().config,
        DDPMScheduler(prediction_type="sample", beta_schedule="squaredcos_cap_v2").config,
        DDIMScheduler(
            prediction_type="v_prediction", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
        ).config,
    ],
    ids=["flow", "epsilon", "sample", "v"],
)
class TestEveryConvention:
    def test_steps_are_the_librarys_solve(self, config):
        for options in [{"theta": bent()}, {"theta": bent(5, "rk1")}, {"solver": "dpm++2m:uniform"}, {"solver": "unipc:uniform"}]:
            scheduler = with_config(config, **options)
            scheduler.set_timesteps(None if "theta" in options else 7)
            convention = scheduler._convention

            def velocity(t, x):
                found = convention.scalars(t.tolist())
                timesteps = torch.tensor(convention.timestep_at([s.t for s in found]), dtype=torch.float32)
                return found[0].x * x + found[0].output * output(timesteps[0], x)

            theta = options.get("theta") or bespoke.solver(options["solver"], 7, convention.path)
            expected = bespoke.sample(theta, noises().double(), velocity)
            scale = expected.abs().max()
            assert (run(scheduler, noises().double()) - expected).abs().max() < 2e-3 * scale
            # On the host in the library, and with torch's operations where gradients are asked for.
            in_library = run(scheduler, noises())
            x0 = noises().requires_grad_()
            in_torch = run(scheduler, x0)
            assert (in_torch - in_library).abs().max() < 1e-4 * scale
            (gradient,) = torch.autograd.grad(in_torch.sum(), x0)
            assert gradient.isfinite().all() and gradient.abs().max() > 0

    def test_saved_and_loaded_it_is_the_same(self, config, tmp_path):
        scheduler = with_config(config, theta=bent())
        scheduler.save_pretrained(tmp_path)
        loaded = BespokeScheduler.from_pretrained(tmp_path)
        for other in (loaded, copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
            assert other.config.theta == scheduler.config.theta == [bent().document]
            assert torch.equal(other.timesteps, scheduler.timesteps)
            assert torch.equal(run(other, noises()), run(scheduler, noises()))

    def test_noise_is_added_as_in_training(self, config):
        scheduler = with_config(config, theta=bent())
        data, noise, timesteps = noises(seed=2), noises(seed=3), torch.tensor([0, 40, 500, 999])
        if scheduler.config.prediction_type == "flow_prediction":
            share = (timesteps / 1000).reshape(-1, 1, 1, 1)
            expected = share * noise + (1 - share) * data
            assert (scheduler.scale_noise(data, timesteps, noise) - expected).abs().max() < 1e-6
        else:
            expected = DDPMScheduler.from_config(config).add_noise(data, noise, timesteps)
        assert (scheduler.add_noise(data, noise, timesteps) - expected).abs().max() < 2e-5


def test_which_evaluation_follows_from_the_timestep():
    scheduler = BespokeScheduler(solver="rk4")
    scheduler.set_timesteps(8)
    timesteps = scheduler.timesteps
    assert timesteps[1] == timesteps[2] and timesteps[3] == timesteps[4]
    expected = run(scheduler, noises())
    # By value, and for a whole batch at once.
    sample = noises()
    for t in timesteps.tolist():
        sample = scheduler.step(output(t, sample), t, sample).prev_sample
    assert torch.equal(sample, expected)
    sample = noises()
    for t in timesteps:
        sample = scheduler.step(output(t, sample), t.expand(len(sample)), sample, return_dict=False)[0]
    assert torch.equal(sample, expected)
    with pytest.raises(ValueError, match="timestep is 123.0, expected one of timesteps"):
        scheduler.step(sample, 123.0, sample)
    with pytest.raises(ValueError, match="model_output has shape"):
        scheduler.step(noises(2), timesteps[0], noises())


@pytest.mark.host_memory  # a device's numbers are not waited for
def test_an_output_that_is_not_finite_is_told():
    scheduler = BespokeScheduler(solver="rk4")
    scheduler.set_timesteps(8)
    with pytest.raises(bespoke.NonFiniteError):
        scheduler.step(noises() * float("nan"), scheduler.timesteps[0], noises())


def test_a_solve_may_begin_at_a_later_step_as_image_to_image_does():
    scheduler = BespokeScheduler(theta=bent())
    x, states = noises(), []
    for t in scheduler.timesteps:
        x = scheduler.step(output(t, x), t, x).prev_sample
        states.append(x)
    x = states[1].clone()
    for t in scheduler.timesteps[2:]:
        x = scheduler.step(output(t, x), t, x).prev_sample
    assert torch.equal(x, states[-1])


def test_a_pipeline_may_replace_samples():
    for options in [{"theta": bent()}, {"solver": "dpm++2m"}]:
        scheduler = BespokeScheduler(**options)
        expected = run(scheduler, noises(), 3 if "theta" in options else 6)
        assert torch.equal(run(scheduler, noises(), between=torch.clone), expected)
    # A mask at the end of a step is honoured where the next step begins with the sample.
    scheduler = BespokeScheduler(theta=bent())
    x = noises()
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.step(output(t, x), t, x).prev_sample
        x = torch.zeros_like(x) if k == 3 else x
    y = torch.zeros_like(x)
    for t in scheduler.timesteps[4:]:
        y = scheduler.step(output(t, y), t, y).prev_sample
    assert torch.equal(x, y)


def test_solves_of_one_object_do_not_disturb_each_other():
    scheduler = BespokeScheduler(theta=[bent(3), bent(5)])
    expected = {(seed, steps): run(scheduler, noises(seed=seed), steps) for seed in range(4) for steps in (3, 5)}
    # Taking turns on one thread, at one number of steps.
    scheduler.set_timesteps(5)
    samples = {seed: noises(seed=seed) for seed in range(4)}
    for t in scheduler.timesteps:
        for seed in samples:
            samples[seed] = scheduler.step(output(t, samples[seed]), t, samples[seed]).prev_sample
    assert all(torch.equal(sample, expected[seed, 5]) for seed, sample in samples.items())
    # On threads that meet before every evaluation, with different numbers of steps.
    found, gate = {}, threading.Barrier(4)

    def solve(seed, steps):
        scheduler.set_timesteps(steps)
        gate.wait()
        sample = noises(seed=seed)
        for k in range(10):
            gate.wait()
            if k < len(scheduler.timesteps):
                t = scheduler.timesteps[k]
                sample = scheduler.step(output(t, sample), t, sample.clone() if seed % 2 else sample).prev_sample
        found[seed, steps] = sample

    threads = [threading.Thread(target=solve, args=(seed, 3 + 2 * (seed // 2))) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and all(torch.equal(sample, expected[key]) for key, sample in found.items())


def test_two_continuations_of_one_sample_are_two():
    scheduler = BespokeScheduler(theta=bent())
    t = scheduler.timesteps
    a = noises()
    for k in range(2):
        a = scheduler.step(output(t[k], a), t[k], a).prev_sample
    b, c = (scheduler.step(output(t[2], a) * factor, t[2], a).prev_sample for factor in (1.0, 0.5))
    b, c = (scheduler.step(output(t[3], x), t[3], x).prev_sample for x in (b, c))
    alone = a.clone()
    alone = scheduler.step(output(t[2], alone), t[2], alone).prev_sample
    alone = scheduler.step(output(t[3], alone), t[3], alone).prev_sample
    assert torch.equal(b, alone) and not torch.equal(c, alone)


def test_half_precision_and_layouts():
    scheduler = BespokeScheduler(theta=bent())
    expected = run(scheduler, noises())
    for dtype, tolerance in [(torch.float16, 2e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-4)]:
        found = run(scheduler, noises().to(dtype))
        assert found.dtype == dtype and (found - expected).abs().max() < tolerance
    x0 = noises().expand(4, 3, 8, 8).to(memory_format=torch.channels_last)
    assert torch.equal(run(scheduler, x0), run(scheduler, x0.contiguous()))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="theta and solver"):
        BespokeScheduler()
    with pytest.raises(ValueError, match="prediction_type is 'noise'"):
        BespokeScheduler(theta=bent(), prediction_type="noise")
    with pytest.raises(ValueError, match=r"num_inference_steps is 50, .* 3 \(6 evaluations\)"):
        BespokeScheduler(theta=bent()).set_timesteps(50)
    for options in [{"theta": bent()}, {"solver": "dpm++2m"}]:
        with pytest.raises(ValueError, match="num_inference_steps is 0, expected at least 1"):
            BespokeScheduler(**options).set_timesteps(0)
    with pytest.raises(ValueError, match="set_timesteps comes first"):
        _ = BespokeScheduler(solver="euler").timesteps
    with pytest.raises(ValueError, match="guidance_scale is 2.0"):
        TorchField(make_unet(0), {}, (1, 8, 8), guidance_scale=2.0)


def bespoke_sample(field, theta, folder, x0, guidance, name):
    """What the program makes of the same module, theta and noise."""
    card = field.export(folder / f"{name}.json")
    np.save(folder / "noise.npy", x0.numpy())
    if isinstance(theta, bespoke.Theta):
        theta.save(folder / "theta.json")
        theta = str(folder / "theta.json")
    assert PROGRAM.exists(), f"{PROGRAM} is missing: cargo build --release, or name it in BESPOKE_PROGRAM"
    arguments = ["sample", "--model", card, "--solver", theta, "--noise", folder / "noise.npy", "--out", folder / "x.npy"]
    arguments += ["--class", "3", "--guidance-scale", str(guidance)]
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return torch.from_numpy(np.load(folder / "x.npy"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_pipeline_samples_what_the_program_samples(pipelines, kind, guidance, tmp_path):
    original = pipelines[kind]
    before = original(LABELS, 10, guidance, latents=noises())
    pipeline = type(original)(original.unet, original.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    field = field_of(original, guidance_scale=guidance, **conditions())
    for options, steps, name in [({"theta": bent()}, 3, None), ({"solver": "unipc:uniform"}, 8, "unipc@8")]:
        pipeline.scheduler = BespokeScheduler.from_config(original.scheduler.config, **options)
        found = pipeline(LABELS, steps, guidance, latents=noises())
        assert found.shape == before.shape and found.isfinite().all()
        expected = bespoke_sample(field, name or bent(), tmp_path, noises(), guidance, kind)
        assert (found - expected).abs().max() < 1e-4
        # With pipelines saved and loaded whole.
        pipeline.save_pretrained(tmp_path / "pipeline")
        config = json.loads((tmp_path / "pipeline/scheduler/scheduler_config.json").read_text())
        assert config["_class_name"] == "BespokeScheduler"
        loaded = BespokeScheduler.from_pretrained(tmp_path / "pipeline", subfolder="scheduler")
        pipeline.scheduler = loaded
        assert torch.equal(pipeline(LABELS, steps, guidance, latents=noises()), found)


def test_in_diffusers_own_pipelines():
    unet = make_unet(5, classes=False)
    config = DDPMScheduler().config
    pipeline = DDPMPipeline(unet, BespokeScheduler.from_config(config, theta=bent()))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(2, torch.Generator().manual_seed(3), num_inference_steps=3, output_type="np").images
    field = TorchField(unet, config, (1, 8, 8))
    x0 = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = (bespoke.sample(bent(), x0, field) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - expected).max() < 1e-4

    # This one stacks the samples of both passes, and hands over new tensors at every step.
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=4,
    ).eval()
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    ).eval()
    pipeline = DiTPipeline(transformer, vae, BespokeScheduler.from_config(config, theta=bent()))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline([1, 2], 3.0, torch.Generator().manual_seed(4), num_inference_steps=3, output_type="np").images
    null = {"class_labels": torch.tensor(1000)}
    classes = {"class_labels": torch.tensor([1, 2])}
    field = TorchField(transformer, config, (4, 8, 8), conditions=classes, null=null, guidance_scale=3.0)
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    latents = bespoke.sample(bent(), x0, lambda t, x: field(t, x, torch.arange(2)))
    with torch.no_grad():
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - expected).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_jacobian_product_is_that_of_the_field(pipelines, kind):
    field = field_of(pipelines[kind], guidance_scale=2.0, max_batch=3, **conditions())
    t, x, classes = torch.tensor([0.3, 0.5, 0.7, 0.4]), noises(), torch.tensor([1, 2, 3, 4])
    w = noises(seed=7)
    by_x, by_t = field.vjp(t, x, classes, w)

    def along(of_t, of_x, h):
        difference = field(t + h * of_t, x + h * of_x, classes) - field(t - h * of_t, x - h * of_x, classes)
        return (w * difference).flatten(1).sum(1) / (2 * h)

    direction = noises(seed=8)
    found = (by_x * direction).flatten(1).sum(1)
    expected = along(torch.zeros(4), direction, 2e-3)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    expected = along(torch.ones(4), torch.zeros_like(x), 1e-4)  # a tenth of a timestep
    assert (by_t - expected).abs().max() < 0.03 * expected.abs().max()


def test_conditions_that_are_no_rows_of_tensors_are_refused_by_name():
    """SDXL's ended in "'dict' object has no attribute 'to'"."""
    nested = {"added_cond_kwargs": {"text_embeds": torch.zeros(2, 4)}}
    for key in ("conditions", "null"):
        with pytest.raises(ValueError, match=f"{key} has added_cond_kwargs of type dict, expected a tensor: .* fit"):
            TorchField(make_unet(2), {}, (1, 8, 8), **{key: nested})
    for rows in ({"a": torch.zeros(2, 4), "b": torch.zeros(3)}, {"a": torch.zeros(())}, {"a": torch.zeros(0, 4)}):
        with pytest.raises(ValueError, match="rows, expected the same number of each, one or more"):
            TorchField(make_unet(2), {}, (1, 8, 8), conditions=rows)


def test_a_field_of_another_kind_is_the_same_module():
    unet = make_unet(2)
    named = TorchField(unet, {}, (1, 8, 8), **conditions())
    function = TorchField(lambda x, time, class_labels: unet(x, time, class_labels), {}, (1, 8, 8), **conditions())
    arguments = torch.tensor([0.1, 0.2, 0.3, 0.4]), noises(), torch.arange(4)
    assert torch.equal(named(*arguments), function(*arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_a_solver_is_fitted_to_a_pipeline(pipelines, kind):
    pipeline = pipelines[kind]
    settings = {"steps": 3, "pool": 160, "validation": 60, "rtol": 1e-3, "atol": 1e-3, "progress": False}
    settings |= {"batch": 60, **conditions()}
    scheduler = BespokeScheduler.fit(pipeline, iterations=6, guidance_scale=2.0, **settings)
    training = bespoke.Theta.parse(scheduler.config.theta[0]).training
    assert training["validation"]["rmse"] < 0.9 * training["start"]["rmse"]
    assert scheduler.config.prediction_type == {"flow": "flow_prediction", "vp": "epsilon"}[kind]
    assert pipeline.scheduler is pipelines[kind].scheduler is not scheduler
    # Without autograd.
    forward = BespokeScheduler.fit(pipeline, autograd=False, iterations=3, **settings)
    training = bespoke.Theta.parse(forward.config.theta[0]).training
    assert training["evaluations"]["backward"] == 0 and training["validation"]["rmse"] <= training["start"]["rmse"]
