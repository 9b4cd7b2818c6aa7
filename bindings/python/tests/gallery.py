"""Small pipelines of diffusers' own classes with random weights, one line each in `GALLERY`.

Prompts are embeddings: no tokenizer and no text encoder is needed, and every pipeline takes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import diffusers
import torch

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
#: Prompts of a fit.
PROMPTS = 2
TOKENS, WIDTH = 4, 16


@dataclasses.dataclass(frozen=True)
class Entry:
    """A pipeline of the gallery.

    Attributes:
        make: Builds it.
        prompts: What differs from sample to sample, see `BespokeScheduler.fit`.
        calls: The other arguments of its call.
        image: Whether it goes on from an image at a ``strength``.
        refused: Part of the message by which `fit` refuses it.
    """

    make: Callable[[], Any]
    prompts: Callable[[], dict[str, Any] | None] = lambda: None
    calls: Callable[[], dict[str, Any]] = dict
    image: bool = False
    refused: str | None = None


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(PROMPTS, *shape, generator=torch.Generator().manual_seed(seed))


def texts(*extra: str, tokens: int = TOKENS, width: int = WIDTH, negative: bool = False, mask: bool = False) -> dict[str, Any]:
    """Embeddings as ``prompt_embeds``, and as what ``extra`` names."""
    found = {"prompt_embeds": embeddings(tokens, width)}
    if negative:
        found["negative_prompt_embeds"] = embeddings(tokens, width, seed=1)
    if mask:
        found["prompt_attention_mask"] = torch.ones(PROMPTS, tokens, dtype=torch.long)
        if negative:
            found["negative_prompt_attention_mask"] = torch.ones(PROMPTS, tokens, dtype=torch.long)
    for i, name in enumerate(extra):
        found[name] = embeddings(width, seed=2 + i)
    return found


def image(size: int = 16) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(9))


def frozen(module: torch.nn.Module) -> Any:
    return module.eval().requires_grad_(False)


def vae(channels: int = 4, **more: Any) -> Any:
    return frozen(diffusers.AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=channels, sample_size=16,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), **more,
    ))  # fmt: skip


def flux_vae() -> Any:
    return vae(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=1.5)


def unet2d(**more: Any) -> Any:
    return frozen(diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), add_attention=False,
        **more,
    ))  # fmt: skip


_BLOCKS = {
    "sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}  # fmt: skip


def unet(channels: int = 4, width: int = WIDTH, **more: Any) -> Any:
    options = {"in_channels": channels, "out_channels": 4, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), **_BLOCKS}
    return frozen(diffusers.UNet2DConditionModel(cross_attention_dim=width, **{**options, **more}))


def xl_unet() -> Any:
    return unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + WIDTH
    )


def bare(kind: Any, *names: str, **given: Any) -> Any:
    """A pipeline of ``kind`` without the components that ``names`` names."""
    return kind(**dict.fromkeys(names), **given)


def sd(kind: Any, scheduler: Any = None, **more: Any) -> Any:
    given = {"unet": unet(), "vae": vae(), "scheduler": scheduler or diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **BETAS), **more}
    return bare(kind, "text_encoder", "tokenizer", "safety_checker", "feature_extractor", **given, requires_safety_checker=False)


def xl(kind: Any) -> Any:
    given = {"unet": xl_unet(), "vae": vae(), "scheduler": diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **BETAS)}
    return bare(kind, "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", **given)


def controlnet() -> Any:
    net = diffusers.ControlNetModel(
        in_channels=4, cross_attention_dim=WIDTH, conditioning_embedding_out_channels=(8,), **{k: v for k, v in _BLOCKS.items() if k != "sample_size"}
    )
    for parameter in [*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)  # zero at first
    return frozen(net)


def sd3(kind: Any) -> Any:
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, caption_projection_dim=16, pooled_projection_dim=WIDTH, out_channels=4,
    )  # fmt: skip
    names = [f"{part}{i}" for i in ("", "_2", "_3") for part in ("text_encoder", "tokenizer")]
    given = {"transformer": frozen(model), "vae": flux_vae(), "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)}
    return bare(kind, *names, **given)


_ROPE = (4, 4, 8)


def flux_scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def flux(kind: Any) -> Any:
    model = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=_ROPE, guidance_embeds=True,
    )  # fmt: skip
    names = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]
    return bare(kind, *names, transformer=frozen(model), vae=flux_vae(), scheduler=flux_scheduler())


def chroma() -> Any:
    model = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=_ROPE, approximator_hidden_dim=16, approximator_layers=1,
        approximator_num_channels=16,
    )  # fmt: skip
    return bare(diffusers.ChromaPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=flux_vae(), scheduler=flux_scheduler())


def dit() -> Any:
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=4,
    )  # fmt: skip
    return diffusers.DiTPipeline(frozen(model), vae(), diffusers.DDIMScheduler(clip_sample=False))


def pixart() -> Any:
    model = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=WIDTH,
        in_channels=4, cross_attention_dim=16, out_channels=8, norm_type="ada_norm_single", use_additional_conditions=False,
    )  # fmt: skip
    return bare(diffusers.PixArtSigmaPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=vae(), scheduler=diffusers.DPMSolverMultistepScheduler())


def sana() -> Any:
    model = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH, sample_size=8,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    return bare(diffusers.SanaPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=None, scheduler=scheduler)


def aura() -> Any:
    model = diffusers.AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=16, pos_embed_max_size=64,
    )  # fmt: skip
    return bare(diffusers.AuraFlowPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=vae(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.7))


def lumina() -> Any:
    model = diffusers.Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=32, num_layers=1, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, cap_feat_dim=WIDTH, axes_dim_rope=_ROPE, axes_lens=(32, 16, 16),
    )  # fmt: skip
    return bare(diffusers.Lumina2Pipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=flux_vae(), scheduler=flux_scheduler())


def qwen() -> Any:
    model = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=_ROPE,
    )  # fmt: skip
    return bare(diffusers.QwenImagePipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=None, scheduler=flux_scheduler())


def z_image() -> Any:
    model = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=WIDTH, axes_dims=_ROPE, axes_lens=(64, 32, 32),
    )  # fmt: skip
    return bare(diffusers.ZImagePipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=vae(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))


def cogview4() -> Any:
    model = diffusers.CogView4Transformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4, sample_size=8,
    )  # fmt: skip
    return bare(diffusers.CogView4Pipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=vae(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"))


def cogvideo() -> Any:
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=WIDTH,
        num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=TOKENS,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)
    return bare(diffusers.CogVideoXPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=None, scheduler=scheduler)


def wan(**more: Any) -> Any:
    def model() -> Any:
        return frozen(diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
            text_dim=WIDTH, freq_dim=16, ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ))  # fmt: skip

    given: dict[str, Any] = {"transformer": model(), "vae": None, "scheduler": diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)}
    if more:
        given |= {"transformer_2": model(), **more}
    return bare(diffusers.WanPipeline, "text_encoder", "tokenizer", **given)


def ltx() -> Any:
    model = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=1, caption_channels=WIDTH,
    )  # fmt: skip
    return bare(diffusers.LTXPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=None, scheduler=flux_scheduler())


def mochi() -> Any:
    model = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        text_embed_dim=WIDTH, time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    return bare(diffusers.MochiPipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=None, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))


def hunyuan() -> Any:
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    names = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]
    return bare(diffusers.HunyuanVideoPipeline, *names, transformer=frozen(model), vae=None, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0))


def latte() -> Any:
    model = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=WIDTH,
        in_channels=4, cross_attention_dim=16, out_channels=8, attention_bias=True, num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, video_length=1,
    )  # fmt: skip
    return bare(diffusers.LattePipeline, "text_encoder", "tokenizer", transformer=frozen(model), vae=vae(), scheduler=diffusers.DDIMScheduler(clip_sample=False))


SMALL = {"height": 8, "width": 8}
GUIDED = {"guidance_scale": 3.0}

#: By name: how a pipeline is built and called.
GALLERY: dict[str, Entry] = {
    "DDPM": Entry(lambda: diffusers.DDPMPipeline(unet2d(), diffusers.DDPMScheduler(clip_sample=False))),
    "DiT": Entry(dit, lambda: {"class_labels": [1, 2]}, lambda: dict(GUIDED)),
    "StableDiffusion": Entry(lambda: sd(diffusers.StableDiffusionPipeline), lambda: texts(negative=True), lambda: {**SMALL, **GUIDED, "guidance_rescale": 0.5}),
    "StableDiffusion v, zero snr": Entry(lambda: sd(diffusers.StableDiffusionPipeline, diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", **BETAS)), lambda: texts(negative=True), lambda: {**SMALL, **GUIDED}),
    "StableDiffusionImg2Img": Entry(lambda: sd(diffusers.StableDiffusionImg2ImgPipeline), lambda: texts(negative=True), lambda: {"image": image(8), **GUIDED}, image=True),
    "StableDiffusionControlNet": Entry(lambda: sd(diffusers.StableDiffusionControlNetPipeline, controlnet=controlnet()), lambda: texts(negative=True), lambda: {"image": image(8), **SMALL, **GUIDED}),
    "StableDiffusionXL": Entry(lambda: xl(diffusers.StableDiffusionXLPipeline), lambda: texts("pooled_prompt_embeds", "negative_pooled_prompt_embeds", negative=True), lambda: {**SMALL, **GUIDED}),
    "StableDiffusionXLImg2Img": Entry(lambda: xl(diffusers.StableDiffusionXLImg2ImgPipeline), lambda: texts("pooled_prompt_embeds", "negative_pooled_prompt_embeds", negative=True), lambda: {"image": image(8), **GUIDED}, image=True),
    "StableDiffusion3": Entry(lambda: sd3(diffusers.StableDiffusion3Pipeline), lambda: texts("pooled_prompt_embeds", "negative_pooled_prompt_embeds", negative=True), lambda: {**SMALL, **GUIDED}),
    "StableDiffusion3Img2Img": Entry(lambda: sd3(diffusers.StableDiffusion3Img2ImgPipeline), lambda: texts("pooled_prompt_embeds", "negative_pooled_prompt_embeds", negative=True), lambda: {"image": image(8), **SMALL, **GUIDED}, image=True),
    "Flux": Entry(lambda: flux(diffusers.FluxPipeline), lambda: texts("pooled_prompt_embeds"), lambda: {**SMALL, **GUIDED}),
    "FluxImg2Img": Entry(lambda: flux(diffusers.FluxImg2ImgPipeline), lambda: texts("pooled_prompt_embeds"), lambda: {"image": image(8), **SMALL, **GUIDED}, image=True),
    "Chroma": Entry(chroma, lambda: {k: v.bool() if "mask" in k else v for k, v in texts(negative=True, mask=True).items()}, lambda: {**SMALL, **GUIDED}),
    "PixArtSigma": Entry(pixart, lambda: texts(negative=True, mask=True), lambda: {**SMALL, **GUIDED, "negative_prompt": None, "use_resolution_binning": False}),
    "Sana": Entry(sana, lambda: texts(negative=True, mask=True), lambda: {"height": 256, "width": 256, **GUIDED, "negative_prompt": None, "use_resolution_binning": False}),
    "AuraFlow": Entry(aura, lambda: texts(negative=True, mask=True), lambda: {**SMALL, **GUIDED}),
    "Lumina2": Entry(lumina, lambda: texts(negative=True, mask=True), lambda: {"height": 16, "width": 16, **GUIDED}),
    "QwenImage": Entry(qwen, lambda: {**texts(), "prompt_embeds_mask": torch.ones(PROMPTS, TOKENS, dtype=torch.long)}, lambda: {"height": 32, "width": 32}),
    "ZImage": Entry(z_image, lambda: {"prompt_embeds": list(embeddings(TOKENS, WIDTH))}, lambda: {"height": 32, "width": 32, "guidance_scale": 0.0}),
    "CogView4": Entry(cogview4, lambda: texts(negative=True), lambda: {"height": 16, "width": 16, **GUIDED}),
    "CogVideoX": Entry(cogvideo, lambda: texts(negative=True), lambda: {"height": 16, "width": 16, "num_frames": 9, **GUIDED}),
    "Wan": Entry(wan, lambda: texts(negative=True), lambda: {"height": 16, "width": 16, "num_frames": 5, **GUIDED}),
    "Wan, two transformers": Entry(lambda: wan(boundary_ratio=0.6), lambda: texts(negative=True), lambda: {"height": 16, "width": 16, "num_frames": 5, **GUIDED, "guidance_scale_2": 2.0}),
    "LTX": Entry(ltx, lambda: texts(negative=True, mask=True), lambda: {"height": 32, "width": 32, "num_frames": 9, **GUIDED}),
    "Mochi": Entry(mochi, lambda: texts(negative=True, mask=True), lambda: {"height": 16, "width": 16, "num_frames": 7, **GUIDED}),
    "HunyuanVideo": Entry(hunyuan, lambda: texts("pooled_prompt_embeds", mask=True), lambda: {"height": 16, "width": 16, "num_frames": 5, **GUIDED}),
    "Latte": Entry(latte, lambda: texts(negative=True), lambda: {**SMALL, **GUIDED, "negative_prompt": None, "video_length": 1}),
}  # fmt: skip


def build(name: str) -> Any:
    """A pipeline of the gallery, with the same weights every time."""
    torch.manual_seed(0)
    pipeline = GALLERY[name].make()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
