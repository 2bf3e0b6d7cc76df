"""Flux: a flow over latents in patches of 2 by 2, with or without distilled guidance.

Labs et al., https://arxiv.org/abs/2506.15742; its blocks are those of Esser et al., https://arxiv.org/abs/2403.03206.

b samples, c channels, h w of the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, cast, final

from pydantic import NonNegativeFloat
from torch import Tensor

from modalign.config import Config
from modalign.integrations.diffusers.family import called
from modalign_image.generators.base import ImageFamily, PromptOptions, packed, unpacked


class FluxOptions(PromptOptions):
    """Settings of Flux."""

    guidance: NonNegativeFloat = 3.5
    """What a network that was distilled with guidance is told of it in training; no effect on the others."""


@final
class Flux(ImageFamily):
    """Flux 1, dev and schnell."""

    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    options: ClassVar[type[Config]] = FluxOptions
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"states": "prompt_embeds", "pooled": "pooled_prompt_embeds"}
    )

    @property
    def multiple(self) -> int:
        return 2 * self.down

    @property
    def unguided(self) -> float:
        return cast(FluxOptions, self.settings).guidance  # it is no guidance, but what the network is told of it

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, pooled, _ = self.pipe.encode_prompt(prompt=prompts, prompt_2=None, device=self.device, **self.limit())
        return {"states": states, "pooled": pooled}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        states = condition["states"]
        height, width = noisy.shape[-2:]
        guided = self.configured(self.network).get("guidance_embeds")
        tokens = called(
            self.denoise,
            hidden_states=packed(noisy),
            timestep=self.clock(time, noisy, scale=1.0),
            guidance=time.new_full(time.shape, cast(FluxOptions, self.settings).guidance).float() if guided else None,
            pooled_projections=condition["pooled"],
            encoder_hidden_states=states,
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=self._places(noisy),
        )
        return unpacked(tokens, height, width)

    def _places(self, noisy: Tensor) -> Tensor:
        """Where each patch is, ``(h w / 4) 3``."""
        make = cast("Callable[..., Tensor]", getattr(self.pipe, "_prepare_latent_image_ids"))  # noqa: B009 - no public name
        count, _, height, width = noisy.shape
        return make(count, height // 2, width // 2, noisy.device, noisy.dtype)
