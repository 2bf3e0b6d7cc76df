"""Tiny pipelines that make clips, for tests: random weights, every part of the real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from modalign.integrations.diffusers.testing import part, save, seeded, t5


def wan(folder: Path, *, euler: bool = False, expand: bool = False, networks: int = 1) -> Path:
    """Wan: 8 pixels of a side and 4 frames to a latent.

    euler: sampled by Euler's method, and not by UniPC.
    expand: a network that is told the time of each token.
    networks: two are those of Wan 2.2, for much and for little noise.
    """
    with seeded(0):
        reader, letters = umt5(16)
        made = [
            part(
                "WanTransformer3DModel",
                patch_size=(1, 2, 2),
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=4,
                out_channels=4,
                text_dim=16,
                freq_dim=32,
                ffn_dim=32,
                num_layers=2,
                cross_attn_norm=True,
                qk_norm="rms_norm_across_heads",
                rope_max_seq_len=32,
            )
            for _ in range(networks)
        ]
        flow = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        return save(
            folder,
            "WanPipeline",
            transformer=made[0],
            transformer_2=made[1] if networks > 1 else None,
            boundary_ratio=0.875 if networks > 1 else None,
            expand_timesteps=expand,
            vae=part(
                "AutoencoderKLWan",
                base_dim=4,
                z_dim=4,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, True, True],
                latents_mean=[-0.7, 0.2, 0.5, -0.1],
                latents_std=[2.8, 1.4, 0.6, 1.9],
            ),
            text_encoder=reader,
            tokenizer=letters,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else flow,
        )


def ltx(folder: Path, *, timed: bool = False) -> Path:
    """LTX-Video: 8 pixels of a side and 8 frames to a latent.

    timed: an autoencoder whose decoder is told a time.
    """
    with seeded(0):
        reader, letters = t5(32)
        autoencoder = part(
            "AutoencoderKLLTXVideo",
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, True, False),
            decoder_spatio_temporal_scaling=(True, True, True, False),
            decoder_inject_noise=(False,) * 5,
            timestep_conditioning=timed,
            patch_size=1,
            scaling_factor=0.8,
        )
        # checkpoints carry them beside the weights
        autoencoder.latents_mean.copy_(torch.randn(8))  # pyright: ignore[reportCallIssue]
        autoencoder.latents_std.copy_(torch.rand(8) + 0.5)  # pyright: ignore[reportCallIssue]
        return save(
            folder,
            "LTXPipeline",
            transformer=part(
                "LTXVideoTransformer3DModel",
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=8,
                cross_attention_dim=32,
                num_layers=1,
                caption_channels=32,
                qk_norm="rms_norm_across_heads",
            ),
            vae=autoencoder,
            text_encoder=reader,
            tokenizer=letters,
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
            ),
        )


def cogvideox(folder: Path, *, rotary: bool = False, deep: int | None = None) -> Path:
    """CogVideoX: 8 pixels of a side and 4 frames to a latent.

    rotary: places told by rotation, as in the larger networks, which are sampled by DPM.
    deep: frames of latents in one token, as in 1.5.
    """
    with seeded(0):
        reader, letters = t5(32)
        kind = CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler
        return save(
            folder,
            "CogVideoXPipeline",
            transformer=part(
                "CogVideoXTransformer3DModel",
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=4,
                out_channels=4,
                time_embed_dim=2,
                text_embed_dim=32,
                num_layers=1,
                sample_width=2,
                sample_height=2,
                sample_frames=9,
                patch_size=2,
                patch_size_t=deep,
                temporal_compression_ratio=4,
                max_text_seq_length=32,
                use_rotary_positional_embeddings=rotary,
                patch_bias=deep is None,
            ),
            vae=part(
                "AutoencoderKLCogVideoX",
                down_block_types=("CogVideoXDownBlock3D",) * 4,
                up_block_types=("CogVideoXUpBlock3D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=2,
                temporal_compression_ratio=4,
                scaling_factor=0.7,
            ),
            text_encoder=reader,
            tokenizer=letters,
            scheduler=kind(
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                snr_shift_scale=1.0 if rotary else 3.0,
                timestep_spacing="trailing",
                clip_sample=False,
            ),
        )


def umt5(width: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder of a UMT5, which is a T5 whose layers each have places of their own, and a tokenizer of letters."""
    model, letters = t5(width)
    said = {name: getattr(model.config, name) for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers")}
    return UMT5EncoderModel(UMT5Config(**said, num_heads=4)).eval(), letters
