"""Eight evaluations in diffusers' own pipelines: models shaped like SDXL and SD3, trained on the digits.

    python examples/pipelines.py [--kind xl sd3] [--iterations 400] [--count 50] [--out pipelines.png]

Each digit is a prompt, a fixed embedding. The scheduler that the pipeline comes with, UniPC and `BespokeScheduler.fit`
sample the same noises with guidance 3; the ground truth is the classical Runge-Kutta method with 200 evaluations of what
the pipeline gives its scheduler.
"""

import argparse
import copy
import sys

import bespoke_solver as bespoke
import diffusers
import numpy as np
import torch
from bespoke_solver import BespokeScheduler
from bespoke_solver.pipeline_field import PipelineField
from digits import DATA

WIDTH, TOKENS, GUIDANCE, NFE = 32, 2, 3.0, 8


def embeddings() -> dict:
    """Of ten prompts and of none."""
    texts = torch.randn(11, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    return {"prompt": texts[:10], "pooled": texts[:10, 0], "negative": texts[10:], "negative_pooled": texts[10:, 0]}


def xl() -> tuple:
    """A pipeline, and how its model is called in training."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        attention_head_dim=8, cross_attention_dim=WIDTH, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    names = dict.fromkeys(["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
    pipeline = diffusers.StableDiffusionXLPipeline(unet=unet, scheduler=scheduler, **names)
    pipeline.vae_scale_factor = 1

    def call(noisy: torch.Tensor, timesteps: torch.Tensor, texts: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        sizes = torch.tensor([8, 8, 0, 0, 8, 8]).repeat(len(noisy), 1)
        return unet(noisy, timesteps, texts, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample

    return pipeline, unet, call


def sd3() -> tuple:
    """The same of flow matching."""
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=1, out_channels=1, num_layers=3, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=WIDTH, caption_projection_dim=48, pooled_projection_dim=WIDTH, pos_embed_max_size=8,
    )  # fmt: skip
    parts = [f"{part}{i}" for i in ("", "_2", "_3") for part in ("text_encoder", "tokenizer")]
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = diffusers.StableDiffusion3Pipeline(transformer=model, vae=None, scheduler=scheduler, **dict.fromkeys(parts))
    pipeline.vae_scale_factor = 1

    def call(noisy: torch.Tensor, timesteps: torch.Tensor, texts: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        return model(noisy, texts, pooled, timesteps).sample

    return pipeline, model, call


def train(kind: str, iterations: int) -> tuple:
    """A trained pipeline, and what `fit` is to give it."""
    torch.manual_seed(0)
    pipeline, model, call = {"xl": xl, "sd3": sd3}[kind]()
    images = torch.from_numpy(np.load(DATA / "digits-images.npy")).float().reshape(-1, 1, 8, 8) / 8 - 1
    labels, given = torch.from_numpy(np.load(DATA / "digits-labels.npy")).long(), embeddings()
    texts, pooled = torch.cat([given["prompt"], given["negative"]]), torch.cat([given["pooled"], given["negative_pooled"]])
    noising = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=iterations, pct_start=0.1)
    for _ in range(iterations):
        rows = torch.randint(len(images), (96,))
        data, prompts = images[rows], torch.where(torch.rand(96) < 0.15, 10, labels[rows])
        noise = torch.randn_like(data)
        if kind == "xl":
            timesteps = torch.randint(1000, (96,))
            noisy, target = noising.add_noise(data, noise, timesteps), noise
        else:
            timesteps = 1000 * torch.rand(96)
            share = timesteps.reshape(-1, 1, 1, 1) / 1000
            noisy, target = share * noise + (1 - share) * data, noise - data
        loss = torch.nn.functional.mse_loss(call(noisy, timesteps, texts[prompts], pooled[prompts]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    prompts = {
        "prompt_embeds": given["prompt"],
        "pooled_prompt_embeds": given["pooled"],
        "negative_prompt_embeds": given["negative"].repeat(10, 1, 1),
        "negative_pooled_prompt_embeds": given["negative_pooled"].repeat(10, 1),
    }
    return pipeline, {"prompts": prompts, "calls": {"height": 8, "width": 8, "guidance_scale": GUIDANCE}}, loss.item()


def rmse(samples: torch.Tensor, truth: torch.Tensor) -> float:
    return (samples - truth).flatten(1).square().mean(1).sqrt().mean().item()


def compare(kind: str, iterations: int, count: int) -> tuple:
    pipeline, given, loss = train(kind, iterations)
    print(f"{kind}: trained to a loss of {loss:.3f}", file=sys.stderr)
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(11))
    labels = [i % 10 for i in range(count)]
    field = PipelineField(pipeline, given["prompts"], given["calls"])
    truth = bespoke.sample(bespoke.solver("rk4", 200), noise, lambda t, x: field(t, x, torch.tensor(labels)))
    call = {**field.call(tuple(labels)), "output_type": "latent", "latents": noise}
    field.close()

    def run(scheduler, steps):
        with_it = copy.copy(pipeline)
        with_it.scheduler = scheduler
        return with_it(**{**call, "latents": noise.clone(), "num_inference_steps": steps}).images

    own = pipeline.scheduler
    unipc = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0} if kind == "sd3" else {}
    found = {
        "own scheduler": run(own, NFE),
        "UniPC": run(diffusers.UniPCMultistepScheduler.from_config(own.config, **unipc), NFE),
    }
    options = {"iterations": 16, "batch": 50, "pool": 200, "validation": 50, "rtol": 1e-4, "atol": 1e-4, "progress": False}
    for family, steps in (("rk2", NFE // 2), ("ns", NFE)):
        found[f"BespokeScheduler {family}"] = run(BespokeScheduler.fit(pipeline, family=family, steps=steps, **given, **options), steps)
    return truth, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="+", default=["xl", "sd3"], choices=["xl", "sd3"])
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--out", help="a picture")
    arguments = parser.parse_args()
    results = {kind: compare(kind, arguments.iterations, arguments.count) for kind in arguments.kind}
    print(f"{f'rmse at {NFE} evaluations':24}" + "".join(f"{kind:>12}" for kind in results))
    for name in next(iter(results.values()))[1]:
        print(f"{name:24}" + "".join(f"{rmse(found[name], truth):12.4f}" for truth, found in results.values()))
    if arguments.out:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 5), squeeze=False)
        for axis, (kind, (truth, found)) in zip(axes[0], results.items()):
            rows = [truth[:10], *(samples[:10] for samples in found.values())]
            axis.imshow(torch.cat([torch.cat(list(row[:, 0]), 1) for row in rows]).clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[3.5 + 8 * i for i in range(len(rows))], title=f"{kind}, {NFE} evaluations")
            axis.set_yticklabels(["ground truth", *(f"{name} {rmse(samples, truth):.4f}" for name, samples in found.items())], fontsize=7)
        figure.tight_layout()
        figure.savefig(arguments.out, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
