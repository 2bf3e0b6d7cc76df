"""Tiny pipelines that make pictures, for tests: random weights, every part of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from modalign.integrations.diffusers.testing import clip, part, save, seeded, t5
from modalign_image.generators.testing_texts import gemma2, qwen2_5_vl

SIZE: Final = 16  #: pixels of a side


def stable_diffusion_3(folder: Path) -> Path:
    """Stable Diffusion 3."""
    with seeded(0):
        first, words = clip(16, projection=8)
        second, more = clip(16, projection=8)
        third, letters = t5(32)
        return save(
            folder,
            "StableDiffusion3Pipeline",
            transformer=part(
                "SD3Transformer2DModel",
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pooled_projection_dim=16,
                pos_embed_max_size=16,
            ),
            vae=autoencoder(scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=first,
            tokenizer=words,
            text_encoder_2=second,
            tokenizer_2=more,
            text_encoder_3=third,
            tokenizer_3=letters,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def flux(folder: Path, *, guidance_embeds: bool = True) -> Path:
    """Flux.

    guidance_embeds: a network that was distilled with guidance.
    """
    with seeded(0):
        first, words = clip(16)
        second, letters = t5(32)
        return save(
            folder,
            "FluxPipeline",
            transformer=part(
                "FluxTransformer2DModel",
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 4, 8),
            ),
            vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=first,
            tokenizer=words,
            text_encoder_2=second,
            tokenizer_2=letters,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        )


def qwen_image(folder: Path) -> Path:
    """Qwen-Image."""
    with seeded(0):
        reader, letters = qwen2_5_vl(32)
        return save(
            folder,
            "QwenImagePipeline",
            transformer=part(
                "QwenImageTransformer2DModel",
                patch_size=2,
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(8, 4, 4),
            ),
            vae=part(
                "AutoencoderKLQwenImage",
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 1],
                num_res_blocks=1,
                temperal_downsample=[False],
                latents_mean=[-0.7, 0.2, 0.5, -0.1],
                latents_std=[2.8, 1.4, 0.6, 1.9],
            ),
            text_encoder=reader,
            tokenizer=letters,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
        )


def sana(folder: Path) -> Path:
    """Sana."""
    with seeded(0):
        reader, letters = gemma2(32)
        channels = (8, 8, 8)
        return save(
            folder,
            "SanaPipeline",
            transformer=part(
                "SanaTransformer2DModel",
                in_channels=4,
                out_channels=4,
                num_layers=2,
                num_attention_heads=2,
                attention_head_dim=8,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=32,
                sample_size=8,
            ),
            vae=part(
                "AutoencoderDC",
                latent_channels=4,
                attention_head_dim=4,
                encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
                decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
                encoder_block_out_channels=channels,
                decoder_block_out_channels=channels,
                encoder_layers_per_block=(1, 1, 1),
                decoder_layers_per_block=(1, 1, 1),
                encoder_qkv_multiscales=((), (), (5,)),
                decoder_qkv_multiscales=((), (), (5,)),
                scaling_factor=0.41407,
            ),
            text_encoder=reader,
            tokenizer=letters,
            scheduler=DPMSolverMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
        )


def pixart(folder: Path, name: str = "PixArtSigmaPipeline", *, told: bool = False) -> Path:
    """PixArt.

    name: of its pipeline.
    told: the size of the picture, as the larger networks of PixArt-alpha are; their latents have 128 a side.
    """
    with seeded(0):
        reader, letters = t5(32)
        return save(
            folder,
            name,
            transformer=part(
                "PixArtTransformer2DModel",
                sample_size=128 if told else 8,
                num_layers=2,
                patch_size=2,
                attention_head_dim=8,
                num_attention_heads=3,
                caption_channels=32,
                in_channels=4,
                out_channels=8,
                cross_attention_dim=24,
                norm_type="ada_norm_single",
                norm_elementwise_affine=False,
                norm_eps=1e-6,
            ),
            vae=autoencoder(),
            text_encoder=reader,
            tokenizer=letters,
            scheduler=DPMSolverMultistepScheduler(),
        )


def autoencoder(**settings: object) -> nn.Module:
    """An autoencoder of pictures to 4 channels of half their size."""
    return part(
        "AutoencoderKL",
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        **settings,
    )
