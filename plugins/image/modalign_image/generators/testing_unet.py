"""Tiny pipelines whose network is a U-Net, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import nn

from modalign.integrations.diffusers.testing import clip, part, save, seeded
from modalign_image.generators.testing import autoencoder


def stable_diffusion(folder: Path, prediction: Literal["epsilon", "v_prediction"] = "epsilon") -> Path:
    """Stable Diffusion 1, or 2 where the network predicts v.

    prediction: by the name the scheduler has for it.
    """
    with seeded(0):
        reader, words = clip(32)
        return save(
            folder,
            "StableDiffusionPipeline",
            unet=_unet(cross_attention_dim=32),
            vae=autoencoder(),
            text_encoder=reader,
            tokenizer=words,
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction,
            ),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )


def stable_diffusion_xl(folder: Path, **autoencoding: object) -> Path:
    """Stable Diffusion XL.

    autoencoding: settings of its autoencoder.
    """
    with seeded(0):
        first, words = clip(16)
        second, more = clip(16, projection=8)
        return save(
            folder,
            "StableDiffusionXLPipeline",
            unet=_unet(
                cross_attention_dim=32,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=8 + 6 * 4,
            ),
            vae=autoencoder(scaling_factor=0.13025, **autoencoding),
            text_encoder=first,
            tokenizer=words,
            text_encoder_2=second,
            tokenizer_2=more,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            image_encoder=None,
            feature_extractor=None,
            add_watermarker=False,
        )


def _unet(**settings: object) -> nn.Module:
    return part(
        "UNet2DConditionModel",
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        **settings,
    )
