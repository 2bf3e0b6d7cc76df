"""Tiny pipelines that make pictures, for tests: random weights, every part of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from modalign.integrations.diffusers.testing import clip, part, save, seeded, t5

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
