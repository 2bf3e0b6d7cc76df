"""Stable Diffusion: a U-Net over 2-D latents (Rombach et al., https://arxiv.org/abs/2112.10752)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn

from modalign.config import GenerationConfig
from modalign.integrations.diffusers.family import called, device_of
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

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        said = vars(self.pipe)  # set as diffusers has it set, it would be left out of what is saved
        checker = said[_CHECKER]
        if isinstance(checker, nn.Module):
            checker.to(device_of(self.denoise))  # it is no part of the model, and stays where it was loaded
        if not torch.is_grad_enabled():
            return super().make(prompts, sources, config)
        said[_CHECKER] = None  # it looks at copies, and what it blackens has no gradient
        try:
            return super().make(prompts, sources, config)
        finally:
            said[_CHECKER] = checker
