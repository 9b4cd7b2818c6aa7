"""Inpainting, ensembles, compiled modules and other processes: what pipelines do with a scheduler beyond a call of their own."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import bespoke_solver as bespoke
import diffusers
import pytest
import torch
from bespoke_solver import BespokeScheduler
from bespoke_solver.fitting import fit
from bespoke_solver.pipeline_field import PipelineField
from bespoke_solver.published import grid_text
from bespoke_solver.starts import count_of, published_start
from gallery import BETAS, GALLERY, GUIDED, SMALL, build, flux, image, sd, texts
from test_gallery import apart, identity, samples
from test_solves import learned_ns, plain

#: The left half is made anew.
MASK = torch.cat([torch.ones(1, 1, 8, 4), torch.zeros(1, 1, 8, 4)], 3)


def inpainting(kind: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline that puts what is known of an image into its latents after every step, and its call."""
    torch.manual_seed(0)
    if kind == "StableDiffusionInpaint":
        own = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **BETAS)
        pipeline, given = sd(diffusers.StableDiffusionInpaintPipeline, own), texts(negative=True)
    else:
        pipeline, given = flux(diffusers.FluxInpaintPipeline), texts("pooled_prompt_embeds")
    pipeline.set_progress_bar_config(disable=True)
    one = {key: value[:1] for key, value in given.items()}
    return pipeline, {**one, "image": image(8), "mask_image": MASK, **SMALL, **GUIDED, "output_type": "latent"}


def made(pipeline: Any, scheduler: Any, steps: int, call: dict[str, Any]) -> torch.Tensor:
    """The latents of a call with a scheduler of one's own."""
    pipeline = copy.copy(pipeline)
    pipeline.scheduler = scheduler
    return pipeline(**call, num_inference_steps=steps, generator=torch.Generator().manual_seed(1)).images


@pytest.mark.parametrize("kind", ["StableDiffusionInpaint", "FluxInpaint"])
def test_what_is_known_of_an_image_stays(kind):
    pipeline, call = inpainting(kind)
    own = pipeline.scheduler
    ddim = BespokeScheduler.from_config(own, solver="ddim")
    for strength in (1.0, 0.6):
        given = {**call, "strength": strength}
        assert apart(made(pipeline, ddim, 20, given), made(pipeline, own, 20, given)) < 1e-5
    # Solvers that need earlier evaluations, or stand amid a step, go on from what the mask makes of the sample.
    exact = made(pipeline, own, 200, {**call, "strength": 1.0})
    for options, steps in [({"theta": identity(40)}, 20), ({"theta": learned_ns(40)}, 40), ({"solver": "dpm++2m"}, 40), ({"solver": "unipc"}, 40)]:
        found = made(pipeline, BespokeScheduler.from_config(own, **options), steps, {**call, "strength": 1.0})
        assert apart(found, exact) < 2e-2, options
    # No function of time and sample is there to be learned.
    given = {key: call[key] for key in call if key in texts("pooled_prompt_embeds", negative=True)}
    rest = {key: call[key] for key in call if key not in given}
    with pytest.raises(ValueError, match=f"{kind}Pipeline changes its samples between steps"):
        PipelineField(pipeline, given, rest)


def called(name: str, scheduler: Any, steps: int, **more: Any) -> tuple[torch.Tensor, int]:
    """The latents of a pipeline of the gallery with a scheduler, and the evaluations that it made."""
    pipeline, entry = build(name), GALLERY[name]
    counted, step = [], scheduler.step
    scheduler.step = lambda *arguments, **options: counted.append(1) or step(*arguments, **options)
    prompts = {key: value[:1] for key, value in (entry.prompts() or {}).items()}
    found = made(pipeline, scheduler, steps, {**prompts, **entry.calls(), "output_type": "latent", **more})
    del scheduler.step
    return found, len(counted)


def test_images_are_gone_on_from_by_any_solver():
    """SD at strength .6 with euler: "evaluation 10 builds on the ones before it"."""
    own = build("StableDiffusionImg2Img").scheduler
    ends = [called("StableDiffusionImg2Img", BespokeScheduler.from_config(own, solver=name), 40, strength=0.6) for name in ("euler", "ab4", "unipc:uniform")]
    assert [count for _, count in ends] == [24] * 3
    for found, _ in ends[1:]:
        assert apart(found, ends[0][0]) < 5e-2


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.6, 0.9])
def test_a_strength_is_as_many_evaluations_as_of_the_scheduler_replaced(strength):
    """Flux with an rk2 theta: .9 made 16 of 20 evaluations, .5 ended in an IndexError."""
    own = build("FluxImg2Img").scheduler
    learned = BespokeScheduler.from_config(own, theta=plain(10))
    found, count = called("FluxImg2Img", learned, 10, strength=strength)
    assert found.isfinite().all() and count == called("FluxImg2Img", own, 20, strength=strength)[1]


def test_what_a_controlnet_adds_is_learned_from():
    """The bare UNet was fitted."""
    pipeline, entry = build("StableDiffusionControlNet"), GALLERY["StableDiffusionControlNet"]
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([0.3, 0.7])
    velocities = []
    for scale in (1.0, 0.0):
        field = PipelineField(pipeline, entry.prompts(), {**entry.calls(), "controlnet_conditioning_scale": scale})
        velocities.append(field(t, x, torch.tensor([0, 1])))
        field.close()
    without = build("StableDiffusion")
    without.unet = pipeline.unet
    bare = PipelineField(without, entry.prompts(), {key: value for key, value in entry.calls().items() if key != "image"})
    velocities.append(bare(t, x, torch.tensor([0, 1])))
    bare.close()
    assert apart(velocities[1], velocities[2]) < 1e-4 < 1e-2 < apart(velocities[0], velocities[2])


def ensemble(options: dict[str, Any], steps: int, cut: float | None, own: bool = False) -> torch.Tensor:
    """SDXL's base to a level, its refiner, here of the same weights, from there; or its base alone."""
    base, refiner = build("StableDiffusionXL"), build("StableDiffusionXLImg2Img")
    for pipeline in (base, refiner):
        if not own:
            pipeline.scheduler = BespokeScheduler.from_config(pipeline.scheduler, **options)
    entry, generator = GALLERY["StableDiffusionXL"], torch.Generator().manual_seed(1)
    call = {**{key: value[:1] for key, value in (entry.prompts() or {}).items()}, **GUIDED, "num_inference_steps": steps}
    call |= {"output_type": "latent", "generator": generator}
    found = base(**call, **SMALL, **({} if cut is None else {"denoising_end": cut})).images
    return found if cut is None else refiner(**call, image=found, denoising_start=cut).images


def test_an_ensemble_hands_its_sample_on():
    for cut in (0.5, 0.6):
        expected = ensemble({}, 20, cut, own=True)
        assert apart(ensemble({"solver": "ddim"}, 20, cut), expected) < 1e-2
        # As the whole solve, where a step needs nothing of those before it; else with lower orders where it begins.
        for options, tolerance in [({"solver": "ddim"}, 1e-6), ({"theta": plain(20, "rk1")}, 1e-6), ({"solver": "dpm++2m"}, 1e-3), ({"theta": learned_ns(20)}, 1e-2)]:
            assert apart(ensemble(options, 20, cut), ensemble(options, 20, None)) < tolerance, (options, cut)
    # The refiner begins one evaluation early for whatever has two a step, as Heun's scheduler repeats its timesteps.
    with pytest.raises(ValueError, match="begin_index is 11, expected a multiple of 2"):
        ensemble({"theta": plain(10)}, 10, 0.5)


def test_compiled_modules_are_called_and_learned_from():
    name = "Flux"
    pipeline, entry = build(name), GALLERY[name]
    call = {**{key: value[:1] for key, value in (entry.prompts() or {}).items()}, **entry.calls(), "output_type": "latent"}
    learned = BespokeScheduler.from_config(pipeline.scheduler, theta=identity(8))
    expected = made(pipeline, learned, 4, call)
    plainly = PipelineField(pipeline, entry.prompts(), entry.calls())
    pipeline.transformer = torch.compile(pipeline.transformer, backend="eager")
    assert apart(made(pipeline, learned, 4, call), expected) < 1e-6
    compiled = PipelineField(pipeline, entry.prompts(), entry.calls())
    x, t, labels = torch.randn(2, *compiled.shape), torch.tensor([0.3, 0.7]), torch.tensor([0, 1])
    for found, wanted in zip(compiled.vjp(t, x, labels, x), plainly.vjp(t, x, labels, x)):
        assert apart(found, wanted) < 1e-4
    compiled.close()
    plainly.close()


LOADING = """
import sys, torch
if sys.argv[3]:
    import bespoke_solver
from pathlib import Path
import diffusers
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    kept = torch.load(folder / "kept.pt", weights_only=False)
    pipeline = getattr(diffusers, kept["class"]).from_pretrained(folder, **kept["given"])
    assert type(pipeline.scheduler) is bespoke_solver.BespokeScheduler, folder
    from test_gallery import samples
    pipeline.set_progress_bar_config(disable=True)
    found = samples(pipeline, pipeline.scheduler, kept["call"], None)
    apart, largest = (float(x.abs().max()) for x in (found - kept["sample"], kept["sample"]))
    assert apart <= 1e-5 * largest, (folder.name, apart, largest)
    print(folder.name)
"""


def load(folder: Path, imported: bool) -> subprocess.CompletedProcess[str]:
    """Loads and runs all pipelines of a folder in a fresh process, after ``import bespoke_solver`` or without it."""
    arguments = [str(folder), str(Path(__file__).parent), "yes" if imported else ""]
    return subprocess.run([sys.executable, "-c", LOADING, *arguments], capture_output=True, text=True)


def test_saved_pipelines_are_loaded_by_another_process(tmp_path: Path):
    names = [name for name, entry in GALLERY.items() if not entry.image]
    for name in names:
        pipeline, entry = build(name), GALLERY[name]
        pipeline.scheduler = BespokeScheduler.from_config(pipeline.scheduler, theta=identity(4))
        prompts = {key: values[:1] for key, values in (entry.prompts() or {}).items()}
        call = {**prompts, **entry.calls(), "num_inference_steps": 2, "output_type": "latent"}
        folder = tmp_path / name.replace(" ", "-").replace(",", "")
        pipeline.save_pretrained(folder)
        sample = samples(pipeline, pipeline.scheduler, {**call, "generator": torch.Generator().manual_seed(5)}, None)
        call["generator"] = torch.Generator().manual_seed(5)
        # What is missing has to be said; models with parts in float32 diffusers loads by a package that is not here.
        given = {part: it for part, it in pipeline.components.items() if it is None or getattr(it, "_keep_in_fp32_modules", None)}
        torch.save({"class": type(pipeline).__name__, "given": given, "call": call, "sample": sample}, folder / "kept.pt")
    done = load(tmp_path, imported=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == len(names)
    # diffusers imports no module because a file names it, and says which line is missing.
    refused = load(tmp_path, imported=False)
    assert refused.returncode != 0 and "import bespoke_solver before calling `from_pretrained`" in refused.stderr


def test_a_ladder_is_saved_with_its_pipeline(tmp_path: Path):
    pipeline = build("DDPM")
    pipeline.scheduler = BespokeScheduler.from_config(pipeline.scheduler, theta=[plain(2), plain(4), bespoke.solver("ab2", 3).compile()])
    pipeline.save_pretrained(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is diffusers.DDPMPipeline
    for steps, evaluations in [(2, 4), (3, 3), (4, 8)]:
        loaded.scheduler.set_timesteps(steps)
        assert len(loaded.scheduler.timesteps) == evaluations


def test_a_fitted_table_starts_from_a_published_one_where_that_is_better(tmp_path: Path):
    """UniPC was at .0046 on QwenImage where fit ended at .0071: its table is one of the family's, and was no start."""
    name = "QwenImage"
    pipeline, entry = build(name), GALLERY[name]
    field = PipelineField(pipeline, entry.prompts(), entry.calls())
    levels = field.levels(8)
    start = published_start(levels, field.convention, 8)
    noise = torch.randn(4, *field.shape, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(4, dtype=torch.long)
    ends = [bespoke.sample(solver, noise, lambda t, x: field(t, x, labels)) for solver in (start, bespoke.solver("unipc:" + grid_text(1 / (1 + levels)), 8))]
    assert apart(*ends) < 1e-5
    options = {"pool": 8, "validation": 8, "batch": 8, "iterations": 2, "rtol": 1e-3, "atol": 1e-3, "progress": False}
    theta = fit(pipeline, field=field, family="ns", steps=8, out=tmp_path / "theta.json", **options)
    start.save(tmp_path / "unipc.json")
    alone = fit(pipeline, field=field, family="ns", steps=8, init=str(tmp_path / "unipc.json"), **options)
    field.close()
    kept = bespoke.Theta.load(tmp_path / "theta.json")
    assert kept == theta and theta.model and "start" in theta.training
    # On the same noises.
    assert theta.training["validation"]["rmse"] <= alone.training["start"]["rmse"] * (1 + 1e-6)
    begun = theta.training["start"]["solver"]
    assert begun == "unipc@8 on the pipeline's grid" or re.fullmatch(r"[a-z0-9+-]+@8(:\S+)?", begun), begun
    # What has another family, a start of its own, or no grid of so many levels is as it was.
    assert count_of({"family": "rk2"}) is None and count_of({"family": "ns", "init": "rk2"}) is None
    assert count_of({"family": "ns"}) == 10 and count_of({"family": "ns", "nfe": [7]}) == 7
    assert published_start(levels[1:], field.convention, 8) is None
