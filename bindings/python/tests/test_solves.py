"""Solves that begin anywhere, samples that are edited on the way, rows at times of their own, and what pipelines ask."""

import copy
import pickle

import bespoke_solver as bespoke
import diffusers
import pytest
import torch
from bespoke_solver import BespokeError, BespokeScheduler, TorchField
from digits import make_unet
from test_configuration import BETAS, exact
from test_diffusers import bent, noises, output, run

FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
VP = diffusers.DPMSolverMultistepScheduler(**BETAS)
PUBLISHED = ["euler", "midpoint", "heun", "rk4", "ab3", "ddim", "dpm-solver-2", "dpm++2m", "dpm++3m", "unipc", "unipc3", "deis", "ipndm"]


def learned_ns(steps: int = 12) -> bespoke.Theta:
    """A theta of full rows: Adams-Bashforth's, written out."""
    return bespoke.solver("ab2", steps).compile()


def plain(steps: int, family: str = "rk2") -> bespoke.Theta:
    """Euler's or the midpoint method, as a theta."""
    knots = steps * (2 if family == "rk2" else 1)
    return bespoke.Theta.parse({
        "format": "bespoke-theta", "version": 1, "family": family, "steps": steps, "t": [i / knots for i in range(knots + 1)],
        "t_dot": [1.0] * knots, "s": [1.0] * (knots + 1), "s_dot": [0.0] * knots,
    })  # fmt: skip


def model_of(scheduler: BespokeScheduler):
    return exact(scheduler)


def from_level(scheduler: BespokeScheduler, k: int, x: torch.Tensor) -> torch.Tensor:
    """The sample at evaluation ``k`` of data of known mean and deviation: all there is to know."""
    at = scheduler._convention.scalars(scheduler._convention.time_of([float(scheduler.timesteps[k])]))[0]
    return (at.alpha * 0.3) + ((at.alpha * 0.6) ** 2 + at.sigma**2) ** 0.5 * x


@pytest.mark.parametrize("own", [FLOW, VP], ids=["flow", "vp"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_solver_begins_at_any_evaluation(own, name):
    scheduler = BespokeScheduler.from_config(own, solver=name)
    scheduler.set_timesteps(40)
    model, x = model_of(scheduler), noises()
    whole = x
    for t in scheduler.timesteps:
        whole = scheduler.step(model(whole, t), t, whole).prev_sample
    worst = (whole - (0.3 + 0.6 * x)).abs().max()
    for begin in (1, 7, 20, 33, 39):
        found = from_level(scheduler, begin, x)
        for t in scheduler.timesteps[begin:]:
            found = scheduler.step(model(found, t), t, found).prev_sample
        assert (found - (0.3 + 0.6 * x)).abs().max() < max(1.5 * worst, 0.12), begin


def test_a_restarted_multistep_solver_is_diffusers_own():
    for own, name in [(VP, "dpm++2m"), (diffusers.UniPCMultistepScheduler(**BETAS), "unipc"), (FLOW, "euler")]:
        ours, own = BespokeScheduler.from_config(own, solver=name), copy.deepcopy(own)
        found = expected = noises()
        for scheduler in (ours, own):
            scheduler.set_timesteps(10)
        own.set_begin_index(4)
        model = model_of(ours)
        for t, s in zip(ours.timesteps[4:], own.timesteps[4:]):
            found = ours.step(model(found, t), t, found).prev_sample
            expected = own.step(model(expected, s), s, expected).prev_sample
        assert (found - expected).abs().max() < 2e-3


@pytest.mark.parametrize("theta", [plain(10), plain(20, "rk1"), learned_ns()], ids=["rk2", "rk1", "ns"])
def test_a_theta_begins_at_any_evaluation(theta):
    scheduler = BespokeScheduler.from_config(FLOW, theta=theta)
    model, x = model_of(scheduler), noises()
    for begin in range(1, theta.nfe):
        found = from_level(scheduler, begin, x)
        for t in scheduler.timesteps[begin:]:
            found = scheduler.step(model(found, t), t, found).prev_sample
        assert (found - (0.3 + 0.6 * x)).abs().max() < 0.25, begin


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("own", "name"),
    [(VP, "dpm++2m"), (FLOW, "euler"), (diffusers.EulerDiscreteScheduler(**BETAS), "ddim"),
     (diffusers.DDIMScheduler(clip_sample=False, **BETAS), "ddim")],
)  # fmt: skip
def test_an_edited_sample_is_where_the_solve_goes_on(own, name, in_place, gradients):
    """Latents that a callback scales: ours moved by 142 where DDIM moved by 19, with every published solver.

    With gradients, torch's operations are at work in the library's place.
    """
    ours, own = BespokeScheduler.from_config(own, solver=name), copy.deepcopy(own)
    ends = []
    for scheduler in (ours, own):
        scheduler.set_timesteps(10)
        model, x = model_of(ours), noises() * getattr(scheduler, "init_noise_sigma", 1.0)
        x.requires_grad_(gradients)
        for k, t in enumerate(scheduler.timesteps):
            given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(model(given, t), t, x).prev_sample
            if k in (3, 6):
                if in_place:
                    x *= 0.5
                else:
                    x = x * 0.5
        ends.append(x)
    assert (ends[0] - ends[1]).abs().max() < 5e-3 * ends[1].abs().max()


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"theta": plain(8)}, 8), ({"theta": plain(16, "rk1")}, 16), ({"theta": learned_ns(16)}, 16), ({"solver": "unipc"}, 16),
     ({"solver": "dpm++3m"}, 16), ({"solver": "rk4"}, 16)],
    ids=["rk2", "rk1", "ns", "unipc", "dpm++3m", "rk4"],
)  # fmt: skip
@pytest.mark.parametrize("gradients", [False, True])
def test_an_edit_moves_the_end_as_the_flow_does(options, steps, gradients):
    """diffusers' UniPC drops an edit, whose corrector goes on from its own last sample; ours carries it."""
    scheduler = BespokeScheduler.from_config(FLOW, **options)
    scheduler.set_timesteps(steps)
    model, ends = model_of(scheduler), []
    for edit in (0.0, 0.1):
        x = noises().requires_grad_(gradients)
        for k, t in enumerate(scheduler.timesteps):
            x = scheduler.step(model(x, t), t, x).prev_sample
            if k == 6:
                # What is added at a level is carried to the data as any difference of samples is there.
                at = scheduler._convention.scalars(scheduler._convention.time_of([float(scheduler.timesteps[7])]))[0]
                x = x + edit
        ends.append(x)
    carried = 0.1 * 0.6 / ((at.alpha * 0.6) ** 2 + at.sigma**2) ** 0.5
    assert ((ends[1] - ends[0]) / carried - 1).abs().max() < 0.35


def test_rows_may_be_at_evaluations_of_their_own():
    """Row 1 was stepped at row 0's time, without a word."""
    for options, steps in [({"theta": bent(5)}, 5), ({"solver": "dpm++2m"}, 8)]:
        scheduler = BespokeScheduler.from_config(FLOW, **options)
        scheduler.set_timesteps(steps)
        expected = [run(scheduler, noises(1, seed)) for seed in (1, 2)]
        first = noises(1, 1)
        for t in scheduler.timesteps[:2]:
            first = scheduler.step(output(t, first), t, first).prev_sample
        ahead, count = first, len(scheduler.timesteps)
        x = torch.cat([ahead, noises(1, 2)])
        for k in range(count - 2):
            t = torch.stack([scheduler.timesteps[k + 2], scheduler.timesteps[k]])
            made = torch.cat([output(t[i], x[i : i + 1]) for i in range(2)])
            alone = [scheduler.step(made[i : i + 1], t[i], x[i : i + 1].clone()).pred_original_sample for i in range(2)]
            stepped = scheduler.step(made, t, x)
            assert torch.equal(stepped.pred_original_sample, torch.cat(alone)), k
            x = stepped.prev_sample
        done = x[:1].clone()
        if "theta" in options:
            assert torch.allclose(done, expected[0], atol=1e-6)
        else:
            assert (done - expected[0]).abs().max() < 0.15  # begun anew where it joined
        rest = x[1:].clone()
        for t in scheduler.timesteps[count - 2 :]:
            rest = scheduler.step(output(t, rest), t, rest).prev_sample
        assert (rest - expected[1]).abs().max() < (1e-5 if "theta" in options else 0.15)
    with pytest.raises(ValueError, match=r"timestep has shape \(3,\) and different values, expected one for each of 2"):
        scheduler.step(noises(2), scheduler.timesteps[:3].clone(), noises(2))


def test_timesteps_in_half_precision_and_whole():
    scheduler = BespokeScheduler.from_config(VP, solver="unipc")
    scheduler.set_timesteps(10)
    expected = run(scheduler, noises())
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.float64):
        x = noises()
        for t in scheduler.timesteps:
            x = scheduler.step(output(t, x), t.to(dtype), x).prev_sample
        assert torch.equal(x, expected), dtype


def test_ladders_are_by_evaluations():
    """Of rk1 x 8, ns x 8 and rk2 x 4, two survived without a word."""
    with pytest.raises(ValueError, match="theta holds two of 8 evaluations, rk1 x 8 and rk2 x 4"):
        BespokeScheduler(theta=[bent(8, "rk1"), bent(4)])
    mixed = BespokeScheduler(theta=[bent(4, "rk1"), bent(4)])
    with pytest.raises(ValueError, match="num_inference_steps is 4, which rk1 x 4 and rk2 x 4 both have"):
        mixed.set_timesteps(4)
    ladder = BespokeScheduler(theta=[bent(5), bent(3)])
    ladder.set_timesteps(3)
    assert len(ladder.timesteps) == 6 and len(copy.deepcopy(ladder).timesteps) == 6
    assert len(pickle.loads(pickle.dumps(ladder)).timesteps) == 10


def test_predictions_and_learned_variances():
    for own in (FLOW, VP, diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False), diffusers.EDMEulerScheduler()):
        scheduler = BespokeScheduler.from_config(own, solver="unipc")
        scheduler.set_timesteps(10)
        model, x = model_of(scheduler), noises()
        for t in scheduler.timesteps:
            answer = scheduler.step(model(x, t), t, x)
            x = answer.prev_sample
        assert (answer.pred_original_sample - x).abs().max() < 2e-2
        both = torch.cat([model(x, scheduler.timesteps[0]), noises(seed=9)], 1)
        t = scheduler.timesteps[0]
        assert torch.equal(scheduler.step(both, t, x).prev_sample, scheduler.step(both[:, :1], t, x).prev_sample)


def test_indices_are_told():
    scheduler = BespokeScheduler.from_config(FLOW, solver="euler")
    scheduler.set_timesteps(4)
    assert scheduler.step_index is None and scheduler.begin_index is None
    scheduler.set_begin_index(1)
    t = scheduler.timesteps[1]
    scheduler.step(noises(), t, noises())
    assert (scheduler.begin_index, scheduler.step_index) == (1, 2)
    with pytest.raises(ValueError, match="eta is 0.5"):
        scheduler.step(noises(), t, noises(), eta=0.5)


def test_fit_refuses_by_name_what_is_no_function_of_sample_and_time():
    class Drifting(diffusers.DDPMPipeline):
        """Its model's answer depends on the number of the step."""

        @torch.no_grad()
        def __call__(self, batch_size=1, num_inference_steps=10):
            self.scheduler.set_timesteps(num_inference_steps)
            x = torch.randn(batch_size, 1, 8, 8)
            for i, t in enumerate(self.scheduler.timesteps):
                x = self.scheduler.step(self.unet(x, t).sample * (1 + 0.1 * i), t, x).prev_sample

    class Ahead(diffusers.DDPMPipeline):
        """It reads its timesteps before the loop."""

        @torch.no_grad()
        def __call__(self, batch_size=1, num_inference_steps=10):
            self.scheduler.set_timesteps(num_inference_steps)
            x = torch.randn(batch_size, 1, 8, 8)
            for t in self.scheduler.timesteps.tolist():
                x = self.scheduler.step(self.unet(x, t).sample, t, x).prev_sample

    class Masking(diffusers.DDPMPipeline):
        """It puts something into its samples between steps."""

        @torch.no_grad()
        def __call__(self, batch_size=1, num_inference_steps=10):
            self.scheduler.set_timesteps(num_inference_steps)
            x = torch.randn(batch_size, 1, 8, 8)
            for t in self.scheduler.timesteps:
                x = self.scheduler.step(self.unet(x, t).sample, t, x).prev_sample
                x[..., :4] = 0

    unet = make_unet(3, classes=False)
    for kind, message in [(Drifting, "Drifting differ by .* \\(the number of the step"), (Ahead, "Ahead steps at timestep .* reads its timesteps ahead"), (Masking, "Masking changes its samples between steps")]:
        with pytest.raises(ValueError, match=message):
            BespokeScheduler.fit(kind(unet, diffusers.DDIMScheduler(clip_sample=False)), steps=2, progress=False)
    with pytest.raises(ValueError, match="calls has latents, expected none"):
        BespokeScheduler.fit(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()), calls={"latents": 1}, progress=False)
    # A short call did not reach the step at which it acts, training did.
    with pytest.raises(ValueError, match="calls has callback_on_step_end, expected none"):
        BespokeScheduler.fit(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()), calls={"callback_on_step_end": print}, progress=False)
    # A field of one's own is the way out.
    field = TorchField(lambda x, t: unet(x, t).sample, diffusers.DDIMScheduler().config, (1, 8, 8))
    pipeline = Ahead(unet, diffusers.DDIMScheduler(clip_sample=False))
    made = BespokeScheduler.fit(pipeline, field=field, steps=2, iterations=1, pool=20, validation=10, batch=10, progress=False)
    assert len(made.timesteps) == 4


def test_a_pipelines_field_is_that_of_its_model():
    unet = make_unet(5, classes=False)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(clip_sample=False))
    from bespoke_solver.pipeline_field import PipelineField

    asked, called = PipelineField(pipeline), TorchField(unet, pipeline.scheduler.config, (1, 8, 8))
    assert asked.shape == (1, 8, 8) and asked.classes == 0
    t, x, w = torch.tensor([0.3, 0.3, 0.5, 0.7]), noises(), noises(seed=4)
    assert (asked(t, x) - called(t, x)).abs().max() < 1e-4
    (by_x, by_t), (of_x, of_t) = asked.vjp(t, x, w), called.vjp(t, x, w)
    assert (by_x - of_x).abs().max() < 1e-4 and (by_t - of_t).abs().max() < 0.05 * of_t.abs().max()
    asked.close()
    assert pipeline.scheduler.__class__ is diffusers.DDPMScheduler




@pytest.mark.parametrize("options", [{"solver": "heun"}, {"solver": "dpm++2m"}, {"theta": bent(5)}], ids=str)
def test_copies_and_plain_timesteps_go_on_with_the_last_solve(options) -> None:
    """Half of heun's steps were done twice where neither the sample nor the timestep said which evaluation it was."""
    for told in (lambda t: t, lambda t: t.item(), lambda t: t.repeat(2)):
        scheduler = BespokeScheduler.from_config(FLOW, **options)
        scheduler.set_timesteps(5 if "theta" in options else 10)
        expected = run(scheduler, noises(2))
        x = noises(2)
        for t in scheduler.timesteps:
            x = scheduler.step(output(t, x), told(t), x).prev_sample.clone()
        assert torch.allclose(x, expected, atol=1e-6)


def test_rows_that_are_copied_go_on_each_with_its_own() -> None:
    scheduler = BespokeScheduler.from_config(FLOW, theta=bent(5))
    scheduler.set_timesteps(5)
    ends = []
    for kept in (lambda x: x, torch.clone):
        first, ahead = noises(1, 1), noises(1, 2)
        for t in scheduler.timesteps[:2]:
            ahead = scheduler.step(output(t, ahead), t, ahead).prev_sample
        x = torch.cat([ahead, first])
        for k in range(len(scheduler.timesteps) - 2):
            t = torch.stack([scheduler.timesteps[k + 2], scheduler.timesteps[k]])
            made = torch.cat([output(t[i], x[i : i + 1]) for i in range(2)])
            x = kept(scheduler.step(made, t, x).prev_sample)
        ends.append(x)
    assert torch.equal(*ends)


def test_two_solves_of_copies_are_not_mixed() -> None:
    """Each went on with what the other had left."""
    scheduler = BespokeScheduler.from_config(FLOW, solver="unipc")
    scheduler.set_timesteps(10)
    expected = [run(scheduler, noises(1, seed)) for seed in (1, 2)]
    scheduler.set_timesteps(10)
    pair = [noises(1, 1), noises(1, 2)]
    for t in scheduler.timesteps:
        pair = [scheduler.step(output(t, x), t, x).prev_sample for x in pair]
    assert all(torch.equal(x, y) for x, y in zip(pair, expected))
    scheduler.set_timesteps(10)
    pair = [noises(1, 1), noises(1, 2)]
    with pytest.raises(ValueError, match="another solve of this thread was begun before that one was done"):
        for t in scheduler.timesteps:
            pair = [scheduler.step(output(t, x), t, x).prev_sample.clone() for x in pair]


def test_a_cut_timestep_is_the_one_that_is_due() -> None:
    """Near the end of a dense grid a whole number is nearer to the next one."""
    scheduler = BespokeScheduler.from_config(diffusers.EulerDiscreteScheduler(use_karras_sigmas=True), solver="dpm++2m")
    scheduler.set_timesteps(30)
    expected = run(scheduler, noises())
    x = noises()
    for t in scheduler.timesteps:
        x = scheduler.step(output(t, x), int(t), x).prev_sample
    assert torch.equal(x, expected)


@pytest.mark.parametrize("options", [{"solver": "dpm++2m"}, {"theta": bent(5)}], ids=str)
def test_inference_mode(options) -> None:
    scheduler = BespokeScheduler.from_config(FLOW, **options)
    scheduler.set_timesteps(5 if "theta" in options else 10)
    ends = []
    for mode, change in [(torch.no_grad, False), (torch.inference_mode, False), (torch.no_grad, True), (torch.inference_mode, True)]:
        with mode():
            x = noises()
            for k, t in enumerate(scheduler.timesteps):
                if change and k == 3:
                    x.mul_(0.5)
                x = scheduler.step(output(t, x), t, x).prev_sample
        ends.append(x.clone())
    assert torch.equal(ends[0], ends[1]) and torch.allclose(ends[2], ends[3], atol=1e-6)
    assert not torch.allclose(ends[0], ends[2])


def test_gradients_in_one_evaluation_of_a_step_alone_are_named() -> None:
    scheduler = BespokeScheduler.from_config(FLOW, theta=bent(5))
    scheduler.set_timesteps(5)
    t, x = scheduler.timesteps, noises().requires_grad_()
    following = scheduler.step(output(t[0], x), t[0], x).prev_sample
    with torch.no_grad(), pytest.raises(BespokeError, match="not all of them ask for gradients"):
        scheduler.step(output(t[1], following), t[1], following)


def test_attributes_put_back_one_by_one_are_refused() -> None:
    with pytest.raises(TypeError, match="expected copy.deepcopy of the whole"):
        copy.deepcopy(BespokeScheduler.from_config(FLOW, solver="ddim").__dict__)


def test_a_grid_that_cannot_be_told_is_refused() -> None:
    """A configuration that another class made its own of says no class, and its grid was dropped."""
    own = diffusers.DPMSolverMultistepScheduler.from_config(diffusers.PNDMScheduler(skip_prk_steps=True).config, use_karras_sigmas=True)
    with pytest.raises(ValueError, match="does not say which scheduler it is of"):
        BespokeScheduler.from_config(own.config, solver="dpm++2m")
    scheduler = BespokeScheduler.from_config(own, solver="dpm++2m")
    scheduler.set_timesteps(6)
    own.set_timesteps(6)
    assert (scheduler.timesteps - own.timesteps).abs().max() < 1
