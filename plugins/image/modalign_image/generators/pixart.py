"""PixArt: a transformer over 2-D latents that reads T5.

Chen et al., https://arxiv.org/abs/2310.00426 (alpha) and https://arxiv.org/abs/2403.04692 (Sigma).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast, final

from torch import Tensor

from modalign.config import Config, GenerationConfig
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily, PromptOptions


@final
class PixArt(ImageFamily):
    """PixArt-alpha and PixArt-Sigma.

    Prompts are not cleaned, in training as in writing: the pipeline's own cleaning depends on which packages are
    installed.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    options: ClassVar[type[Config]] = PromptOptions
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({"states": "prompt_embeds", "mask": "prompt_attention_mask"})

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, mask, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, clean_caption=False, **self.limit()
        )
        return {"states": states, "mask": mask}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        found = called(
            self.denoise,
            hidden_states=noisy,
            encoder_hidden_states=condition["states"],
            encoder_attention_mask=condition["mask"],
            timestep=self.clock(time, noisy),
            added_cond_kwargs=self._sizes(noisy),
        )
        return found[:, : noisy.shape[1]]  # the rest is a learned variance

    def asked(self, config: GenerationConfig) -> dict[str, object]:
        # pictures are fitted to the size itself
        return {**super().asked(config), "clean_caption": False, "use_resolution_binning": False}

    def _sizes(self, noisy: Tensor) -> dict[str, Tensor | None]:
        """What the larger networks of alpha are told: height and width, and their ratio."""
        if not cast(bool, self.denoise.use_additional_conditions):
            return {"resolution": None, "aspect_ratio": None}
        count, _, *size = noisy.shape
        height, width = (side * self.down for side in size)
        return {
            "resolution": noisy.new_tensor([height, width]).expand(count, -1),
            "aspect_ratio": noisy.new_tensor([height / width]).expand(count, -1),
        }
