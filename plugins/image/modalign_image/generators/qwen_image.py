"""Qwen-Image: a flow over latents in patches of 2 by 2, conditioned by a language model that sees.

Wu et al., "Qwen-Image technical report", https://arxiv.org/abs/2508.02324.

b samples, c channels, h w of the latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, final

from einops import rearrange
from torch import Tensor

from modalign.config import Config, GenerationConfig
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily, PromptOptions, packed, unpacked

_NOTHING: Final = " "  #: the prompt that its authors guide away from


@final
class QwenImage(ImageFamily):
    """Qwen-Image, whose autoencoder is one of clips: a picture is a clip of one frame."""

    pipelines: ClassVar[tuple[str, ...]] = ("QwenImagePipeline",)
    options: ClassVar[type[Config]] = PromptOptions
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds"})

    @property
    def multiple(self) -> int:
        return 2 * self.down

    def posterior(self, pixels: Tensor) -> Tensor:
        return super().posterior(rearrange(pixels, "b c h w -> b c 1 h w"))

    def scaled(self, latents: Tensor) -> Tensor:
        return rearrange(self.standardized(latents), "b c 1 h w -> b c h w")

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, mask = self.pipe.encode_prompt(
            prompt=[prompt or _NOTHING for prompt in prompts], device=self.device, **self.limit()
        )
        # without a mask where nothing is padded, which is always so of one prompt: attention is faster without
        return {"states": states} if mask is None else {"states": states, "mask": mask}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        count, _, height, width = noisy.shape
        tokens = called(
            self.denoise,
            hidden_states=packed(noisy),
            timestep=self.clock(time, noisy, scale=1.0),
            encoder_hidden_states=condition["states"],
            encoder_hidden_states_mask=condition.get("mask"),
            img_shapes=[[(1, height // 2, width // 2)]] * count,
        )
        return unpacked(tokens, height, width)

    def sampling(self, config: GenerationConfig) -> dict[str, object]:
        # its `guidance_scale` is for distilled networks; what others call so needs a prompt to guide away from
        said, scale = super().sampling(config), config.guidance_scale
        said.pop("guidance_scale", None)
        if scale is not None:
            said["true_cfg_scale"] = scale
        if scale is None or scale > 1:
            said["negative_prompt"] = _NOTHING
        return said
