"""Stable Diffusion: a U-Net over 2-D latents (Rombach et al., https://arxiv.org/abs/2112.10752)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn

from modalign.config import GenerationConfig
from modalign.content import Part
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily

_CHECKER: Final = "safety_checker"


@final
class StableDiffusion(ImageFamily):
    """Stable Diffusion 1 and 2, whose scheduler says whether the network predicts noise or v."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    network: ClassVar[str] = "unet"
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds"})

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, _ = self.pipe.encode_prompt(prompts, self.device, 1, do_classifier_free_guidance=False)
        return {"states": states}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            sample=noisy,
            timestep=self.clock(time, noisy),
            encoder_hidden_states=condition["states"],
        )

    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        checker = self.pipe.components.get(_CHECKER)
        if isinstance(checker, nn.Module):
            checker.to(self.device)  # it is no part of the model that is trained, and stays where it was loaded
        return super().write(prompts, config, first)

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        if not torch.is_grad_enabled():
            return super().make(prompts, sources, config)
        checker = getattr(self.pipe, _CHECKER)
        setattr(self.pipe, _CHECKER, None)  # it looks at copies, and what it blackens has no gradient
        try:
            return super().make(prompts, sources, config)
        finally:
            setattr(self.pipe, _CHECKER, checker)
