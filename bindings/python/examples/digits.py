"""Small diffusers models of the handwritten digits in `data/`, and a pipeline with guidance, made of diffusers' classes."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor

DATA = Path(__file__).resolve().parents[3] / "data"
#: The class that stands for none.
NULL = 10


def conditions() -> dict:
    """What the library's classes 0 to 9, and none, are to the model."""
    return {"conditions": {"class_labels": torch.arange(10)}, "null": {"class_labels": torch.tensor(NULL)}}


def make_unet(seed: int, classes: bool = True) -> UNet2DModel:
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        num_class_embeds=NULL + 1 if classes else None,
    ).eval()


def trained(kind: str, iterations: int = 300, seed: int = 0) -> tuple:
    """A class-conditional UNet of the digits and its scheduler: `flow` (flow matching) or `vp` (epsilon)."""
    images = torch.from_numpy(np.load(DATA / "digits-images.npy")).float() / 8 - 1
    labels = torch.from_numpy(np.load(DATA / "digits-labels.npy")).long()
    unet = make_unet(seed).train()
    scheduler = FlowMatchEulerDiscreteScheduler() if kind == "flow" else DDPMScheduler()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for iteration in range(iterations):
        rows = torch.randint(len(images), (96,), generator=generator)
        data, classes = images[rows], labels[rows]
        classes = torch.where(torch.rand(96, generator=generator) < 0.15, NULL, classes)
        noise = torch.randn(data.shape, generator=generator)
        if kind == "flow":
            sigma = torch.rand(96, generator=generator)
            timesteps, share = sigma * 1000, sigma[:, None, None, None]
            noisy, target = share * noise + (1 - share) * data, noise - data
        else:
            timesteps = torch.randint(1000, (96,), generator=generator)
            noisy, target = scheduler.add_noise(data, noise, timesteps), noise
        loss = torch.nn.functional.mse_loss(unet(noisy, timesteps, class_labels=classes).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - iteration / iterations)
    return unet.eval().requires_grad_(False), scheduler


class DigitsPipeline(DiffusionPipeline):
    """Class-conditional samples with guidance: the usual loop of diffusers' pipelines."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, class_labels, num_inference_steps=10, guidance_scale=1.0, generator=None, latents=None):
        count, config = len(class_labels), self.unet.config
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self.device, dtype=self.unet.dtype)
        latents = latents * getattr(self.scheduler, "init_noise_sigma", 1.0)
        labels = torch.as_tensor(class_labels, device=self.device)
        if guidance_scale != 1.0:
            labels = torch.cat([torch.full_like(labels, NULL), labels])
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        timesteps = self.scheduler.timesteps
        warmup = len(timesteps) - num_inference_steps * self.scheduler.order
        with self.progress_bar(total=num_inference_steps) as bar:
            for i, t in enumerate(timesteps):
                model_input = torch.cat([latents] * 2) if guidance_scale != 1.0 else latents
                if hasattr(self.scheduler, "scale_model_input"):
                    model_input = self.scheduler.scale_model_input(model_input, t)
                output = self.unet(model_input, t, class_labels=labels, return_dict=False)[0]
                if guidance_scale != 1.0:
                    unconditional, conditional = output.chunk(2)
                    output = unconditional + guidance_scale * (conditional - unconditional)
                latents = self.scheduler.step(output, t, latents, return_dict=False)[0]
                if i == len(timesteps) - 1 or (i + 1 > warmup and (i + 1) % self.scheduler.order == 0):
                    bar.update()
        return latents


def pipeline_of(kind: str, iterations: int = 300) -> DigitsPipeline:
    pipeline = DigitsPipeline(*trained(kind, iterations))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
