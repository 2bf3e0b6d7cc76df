"""CogVideoX: a diffusion that predicts v over latents with time before channels, which reads T5.

Yang et al., "CogVideoX: text-to-video diffusion models with an expert transformer", https://arxiv.org/abs/2408.06072.

b samples, t frames, c channels, h w of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Final, cast, final

import torch
from einops import rearrange
from torch import Tensor

from modalign.config import Config
from modalign.errors import ConfigError
from modalign.integrations.diffusers.family import Pipeline, called
from modalign.timeline import Timeline
from modalign_video.generators.base import VideoFamily, VideoOptions

_TOGETHER: Final = 2  #: latents that the autoencoder makes at a time, beside the first


@final
class CogVideoX(VideoFamily):
    """CogVideoX 1 and 1.5.

    1.5 reads frames of latents in twos. A clip that has no whole number of them begins with its first latent again, as
    in the training of its authors; the pipeline drops it after sampling.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("CogVideoXPipeline",)
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds"})

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        said, made = cast(VideoOptions, settings).max_sequence_length, self._words
        if said not in (None, made) and not self._rotary:
            raise ConfigError(
                "this network reads prompts of one length only",
                where="model.options.max_sequence_length",
                got=said,
                fix=f"leave it out: {made}",
            )

    @property
    def usual_fps(self) -> float:
        return 8.0 if self._deep == 1 else 16.0

    @property
    def usual_frames(self) -> int:
        return int(cast(int, self.configured(self.network)["sample_frames"]))

    @property
    def usual(self) -> tuple[int, int]:
        height, width = (self.configured(self.network)[name] for name in ("sample_height", "sample_width"))
        return int(cast(int, height)) * self.down, int(cast(int, width)) * self.down

    @property
    def multiple(self) -> int:
        return math.lcm(8, super().multiple)  # 8 by the pipeline's own check

    @property
    def step(self) -> int:
        # its autoencoder makes no odd number of frames of an even number of latents
        return super().step * _TOGETHER

    @property
    def timeline(self) -> Timeline:
        latents = (self.frames - 1) // self.ratio + 1
        return replace(super().timeline, axis=0, again=-latents % self._deep)

    def scaled(self, latents: Tensor) -> Tensor:
        found = rearrange(super().scaled(latents), "b c t h w -> b t c h w")
        again = -found.shape[1] % self._deep
        return torch.cat([found[:, :1].expand(-1, again, -1, -1, -1), found], dim=1)

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **self.limit()
        )
        return {"states": states}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            hidden_states=noisy,
            encoder_hidden_states=condition["states"],
            timestep=self.clock(time, noisy),
            image_rotary_emb=self._places(noisy) if self._rotary else None,
        )

    def limit(self) -> dict[str, object]:
        said = cast(VideoOptions, self.settings).max_sequence_length
        return {"max_sequence_length": said or self._words}

    def _places(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of where each token is."""
        make = cast(
            "Callable[..., tuple[Tensor, Tensor]]",
            getattr(self.pipe, "_prepare_rotary_positional_embeddings"),  # noqa: B009 - no public name
        )
        frames, _, height, width = noisy.shape[1:]
        return make(height * self.down, width * self.down, frames, noisy.device)

    @property
    def exactly(self) -> int | None:
        return None if self._rotary else self._words

    @property
    def _rotary(self) -> bool:
        """Whether places are told by rotation, and not added once for all."""
        return bool(self.configured(self.network)["use_rotary_positional_embeddings"])

    @property
    def _deep(self) -> int:
        """Frames of latents in one token."""
        return int(cast(int, self.configured(self.network).get("patch_size_t") or 1))

    @property
    def _words(self) -> int:
        """Tokens of a prompt that the network was made for."""
        return int(cast(int, self.configured(self.network)["max_text_seq_length"]))
