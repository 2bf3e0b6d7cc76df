"""Sana: linear attention over the latents of a deep autoencoder (Xie et al., https://arxiv.org/abs/2410.10629)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from modalign.config import Config, GenerationConfig
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily, PromptOptions


@final
class Sana(ImageFamily):
    """Sana 1 and 1.5."""

    pipelines: ClassVar[tuple[str, ...]] = ("SanaPipeline",)
    options: ClassVar[type[Config]] = PromptOptions
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds", "mask": "prompt_attention_mask"})

    @property
    def multiple(self) -> int:
        return math.lcm(32, super().multiple)  # 32 by the pipeline's own check

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        found = [self._read(prompt) for prompt in prompts]
        states, masks = zip(*found, strict=True)
        return {"states": torch.cat(states), "mask": torch.cat(masks)}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        scale = float(cast(float, self.configured(self.network).get("timestep_scale", 1.0)))
        found = called(
            self.denoise,
            hidden_states=noisy,
            encoder_hidden_states=condition["states"],
            encoder_attention_mask=condition["mask"],
            timestep=self.clock(time, noisy, scale=1000 * scale),
        )
        return found[:, : noisy.shape[1]]  # the rest, where there is more, is a learned variance

    def asked(self, config: GenerationConfig) -> dict[str, object]:
        return {**super().asked(config), "use_resolution_binning": False}  # pictures are fitted to the size itself

    def _read(self, prompt: str) -> tuple[Tensor, Tensor]:
        """What the network reads of a prompt: under the pipeline's own instruction, which the prompt that asks for
        nothing goes without."""
        instruction = inspect.signature(type(self.pipe).__call__).parameters["complex_human_instruction"].default
        states, mask, _, _ = self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            complex_human_instruction=instruction if prompt else None,
            **self.limit(),
        )
        return states, mask
