"""LTX-Video: a flow over strongly compressed latents, whose positions are seconds and pixels.

HaCohen et al., "LTX-Video: realtime video latent diffusion", https://arxiv.org/abs/2501.00103.

b samples, n tokens, c channels, t h w of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol, cast, final

from torch import Tensor

from modalign.config import GenerationConfig
from modalign.integrations.diffusers.family import called
from modalign_video.generators.base import VideoFamily


class _Helpers(Protocol):
    """What the pipeline does to latents, by static methods of its own."""

    transformer_spatial_patch_size: int
    transformer_temporal_patch_size: int
    _pack_latents: Callable[..., Tensor]
    _unpack_latents: Callable[..., Tensor]
    _normalize_latents: Callable[..., Tensor]


@final
class LTX(VideoFamily):
    """LTX-Video from text, up to 0.9.1. The network is told the frames per second."""

    pipelines: ClassVar[tuple[str, ...]] = ("LTXPipeline",)
    spatial: ClassVar[str] = "vae_spatial_compression_ratio"
    temporal: ClassVar[str] = "vae_temporal_compression_ratio"
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds", "mask": "prompt_attention_mask"})

    @property
    def usual_fps(self) -> float:
        return float(self.default("frame_rate"))

    @property
    def multiple(self) -> int:
        return math.lcm(32, super().multiple)  # 32 by the pipeline's own check

    def scaled(self, latents: Tensor) -> Tensor:
        autoencoder = self.part(self.autoencoder)
        return self._helpers._normalize_latents(
            latents.float(),
            autoencoder.latents_mean,
            autoencoder.latents_std,
            self.configured(self.autoencoder)["scaling_factor"],
        )

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, mask, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **self.limit()
        )
        return {"states": states, "mask": mask}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        frames, height, width = noisy.shape[2:]
        tokens = called(
            self.denoise,
            hidden_states=self._helpers._pack_latents(noisy, *self._patch),
            encoder_hidden_states=condition["states"],
            timestep=self.clock(time, noisy),
            encoder_attention_mask=condition["mask"],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.step / self.fps, self.down, self.down),
        )
        return self.unpacked(tokens, frames, height, width)

    def unpacked(self, tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Tokens ``b n c`` as latents ``b c t h w``.

        frames, height, width: of the latents.
        """
        side, deep = self._patch
        return self._helpers._unpack_latents(tokens, frames // deep, height // side, width // side, side, deep)

    def asked(self, config: GenerationConfig) -> dict[str, object]:
        return {**super().asked(config), "frame_rate": self.fps}

    @property
    def _helpers(self) -> _Helpers:
        return cast(_Helpers, self.pipe)

    @property
    def _patch(self) -> tuple[int, int]:
        """Latents of a side of a token, and frames of it."""
        return self._helpers.transformer_spatial_patch_size, self._helpers.transformer_temporal_patch_size
