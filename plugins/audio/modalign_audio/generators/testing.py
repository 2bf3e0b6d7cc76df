"""Tiny pipelines that make sounds, for tests: random weights, every part of the real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from einops import rearrange
from torch import nn

from modalign.integrations.diffusers.testing import part, save, seeded, t5
from modalign_audio.generators.testing_texts import clap, gpt2, qwen3


def stable_audio(folder: Path) -> Path:
    """Stable Audio, of half a second of 4 kHz; needs torchsde."""
    from diffusers.schedulers.scheduling_cosine_dpmsolver_multistep import CosineDPMSolverMultistepScheduler

    with seeded(0):
        reader, letters = t5(32)
        network = part(
            "StableAudioDiTModel",
            sample_size=64,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            cross_attention_dim=32,
            time_proj_dim=8,
            global_states_input_dim=32,
            cross_attention_input_dim=16,
        )
        # its last layer is added to what it reads: so it gives a hundredth of it, and sounds stay between -1 and 1
        network.postprocess_conv = _less(0.99)
        return save(
            folder,
            "StableAudioPipeline",
            transformer=network,
            vae=autoencoder([4, 8], rate=4000),
            text_encoder=reader,
            tokenizer=letters,
            projection_model=part(
                "StableAudioProjectionModel", text_encoder_dim=32, conditioning_dim=16, min_value=0, max_value=512
            ),
            scheduler=CosineDPMSolverMultistepScheduler(),
        )


def audioldm2(folder: Path) -> Path:
    """AudioLDM 2, of 16 kHz and spectrograms of the size that the real ones have."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    with seeded(0):
        listener, extractor, words = clap(16)
        reader, letters = t5(32)
        return save(
            folder,
            "AudioLDM2Pipeline",
            unet=part(
                "AudioLDM2UNet2DConditionModel",
                sample_size=16,
                in_channels=4,
                out_channels=4,
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=8,
                # attention in the middle only, which already has three layers of it: many more of random weights and
                # random adapters make of a rounding another number
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
                cross_attention_dim=((None, 16, 32), (None, 16, 32)),
                attention_head_dim=4,
            ),
            vae=part(
                "AutoencoderKL",
                in_channels=1,
                out_channels=1,
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=8,
                sample_size=16,
                scaling_factor=0.4,
            ),
            vocoder=SpeechT5HifiGan(
                SpeechT5HifiGanConfig(
                    model_in_dim=64,
                    sampling_rate=16000,
                    upsample_initial_channel=16,
                    upsample_rates=[10, 4, 4],
                    upsample_kernel_sizes=[20, 8, 8],
                    resblock_kernel_sizes=[3],
                    resblock_dilation_sizes=[[1, 3]],
                    initializer_range=0.2,
                    normalize_before=False,
                )
            ).eval(),
            text_encoder=listener,
            feature_extractor=extractor,
            tokenizer=words,
            text_encoder_2=reader,
            tokenizer_2=letters,
            projection_model=part(
                "AudioLDM2ProjectionModel", text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16
            ),
            language_model=gpt2(16),
            scheduler=DDIMScheduler(
                beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195, clip_sample=False, steps_offset=1
            ),
        )


def ace_step(folder: Path, *, is_turbo: bool = False) -> Path:
    """ACE-Step, of 8 kHz and 25 frames per second.

    is_turbo: a network that was distilled with guidance.
    """
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 8,
    }
    with seeded(0):
        reader, letters = qwen3(32)
        encoder = part(
            "AceStepConditionEncoder",
            text_hidden_dim=32,
            timbre_hidden_dim=4,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
            **sizes,
        )
        encoder.silence_latent = torch.randn(1, 15000, 4)  # what a real one is told of silence is not 0
        return save(
            folder,
            "AceStepPipeline",
            transformer=part(
                "AceStepTransformer1DModel",
                num_hidden_layers=2,
                in_channels=12,
                audio_acoustic_hidden_dim=4,
                patch_size=2,
                is_turbo=is_turbo,
                **sizes,
            ),
            vae=autoencoder([4, 8, 10], rate=8000),
            text_encoder=reader,
            tokenizer=letters,
            condition_encoder=encoder,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        )


def _less(share: float) -> nn.Module:
    """A layer that takes this share away from what it is added to."""
    layer = nn.Conv1d(4, 4, 1, bias=False)
    layer.weight = nn.Parameter(-share * rearrange(torch.eye(4), "c d -> c d 1"))
    return layer


def autoencoder(ratios: list[int], *, rate: int, channels: int = 2) -> nn.Module:
    """Oobleck's autoencoder of waves to 4 channels.

    ratios: how much each layer shortens.
    """
    return part(
        "AutoencoderOobleck",
        encoder_hidden_size=8,
        downsampling_ratios=ratios,
        channel_multiples=[1] * len(ratios),
        decoder_channels=8,
        decoder_input_channels=4,
        audio_channels=channels,
        sampling_rate=rate,
    )
