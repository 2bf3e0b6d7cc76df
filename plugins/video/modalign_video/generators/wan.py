"""Wan: a flow over latents in three dimensions, which reads UMT5.

Wan Team, "Wan: open and advanced large-scale video generative models", https://arxiv.org/abs/2503.20314.

b samples, c channels, t h w of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast, final

from torch import Tensor, nn

from modalign.config import Config
from modalign.errors import ConfigError
from modalign.integrations.diffusers.family import Pipeline, called
from modalign_video.generators.base import VideoFamily


@final
class Wan(VideoFamily):
    """Wan 2.1, and of Wan 2.2 what has one network."""

    pipelines: ClassVar[tuple[str, ...]] = ("WanPipeline",)
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds"})

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        if isinstance(pipe.components.get("transformer_2"), nn.Module):
            raise ConfigError(
                "a pipeline of two networks, one for much noise and one for little, cannot be trained as one",
                where="model.path",
                got="transformer and transformer_2",
                fix="take one with a single network: Wan 2.1, or the 5B model of Wan 2.2",
            )
        super().__init__(pipe, settings)

    @property
    def usual_fps(self) -> float:
        return 24.0 if self._expands else 16.0

    @property
    def multiple(self) -> int:
        return math.lcm(16, self.down * self._patch[1], self.down * self._patch[2])  # 16 by the pipeline's own check

    def scaled(self, latents: Tensor) -> Tensor:
        return self.standardized(latents)

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **self.limit()
        )
        return {"states": states}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        clock = self.clock(time, noisy)
        if self._expands:
            tokens = math.prod(noisy.shape[2:]) // math.prod(self._patch)
            clock = clock[:, None].expand(-1, tokens)
        return called(self.denoise, hidden_states=noisy, timestep=clock, encoder_hidden_states=condition["states"])

    @property
    def _expands(self) -> bool:
        """Whether each token of a clip is told its own time, as where a first frame may be given without noise."""
        return bool(self.pipe.config.get("expand_timesteps"))

    @property
    def _patch(self) -> tuple[int, int, int]:
        """Latents of a token: frames, down and right."""
        return cast("tuple[int, int, int]", tuple(cast("list[int]", self.configured(self.network)["patch_size"])))
