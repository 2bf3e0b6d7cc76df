"""Stable Diffusion 3: a flow over 2-D latents, with pooled vectors (Esser et al., https://arxiv.org/abs/2403.03206)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from torch import Tensor

from modalign.config import Config
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily, PromptOptions


@final
class StableDiffusion3(ImageFamily):
    """Stable Diffusion 3 and 3.5."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    options: ClassVar[type[Config]] = PromptOptions
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"states": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
    )

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, _, pooled, _ = self.pipe.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            **self.limit(),
        )
        return {"states": states, "pooled": pooled}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            hidden_states=noisy,
            timestep=self.clock(time, noisy),
            encoder_hidden_states=condition["states"],
            pooled_projections=condition["pooled"],
        )
