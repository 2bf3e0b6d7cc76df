"""Stable Diffusion XL: a U-Net that is told of sizes and crops (Podell et al., https://arxiv.org/abs/2307.01952).

b samples, c channels, h w of the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily


@final
class StableDiffusionXL(ImageFamily):
    """Stable Diffusion XL and what was made of it."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)
    network: ClassVar[str] = "unet"
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"states": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
    )

    def scaled(self, latents: Tensor) -> Tensor:
        return super().scaled(self.standardized(latents))

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, _, pooled, _ = self.pipe.encode_prompt(
            prompt=prompts, device=self.device, do_classifier_free_guidance=False
        )
        if self.pipe.config.get("force_zeros_for_empty_prompt"):  # what its guidance compares with is no prompt at all
            some = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
            states, pooled = states * some[:, None, None], pooled * some[:, None]
        return {"states": states, "pooled": pooled}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            sample=noisy,
            timestep=self.clock(time, noisy),
            encoder_hidden_states=condition["states"],
            added_cond_kwargs={"text_embeds": condition["pooled"], "time_ids": self._sizes(noisy, condition["pooled"])},
        )

    def _sizes(self, noisy: Tensor, pooled: Tensor) -> Tensor:
        """Original size, upper left corner of the crop and target size, section 2.2 of the paper: ``b 6``.

        Those of a picture that was neither small nor cropped, as the pipeline asks for one: a network that was told how
        each picture had been cut would learn that, and no preference.
        """
        make = cast("Callable[..., Tensor]", getattr(self.pipe, "_get_add_time_ids"))  # noqa: B009 - no public name
        count, _, height, width = noisy.shape
        size = (height * self.down, width * self.down)
        return make(size, (0, 0), size, pooled.dtype, pooled.shape[-1]).to(pooled.device).expand(count, -1)
