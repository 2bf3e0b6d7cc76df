"""A pipeline's parts as the denoiser of a decoder.

b samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self, cast, final

import torch
from torch import Tensor, nn

from modalign.backprop import Route
from modalign.batch import Medium
from modalign.config import GenerationConfig
from modalign.denoiser import Denoiser
from modalign.errors import ModelError
from modalign.generating import ASKED, FITTED, WORDS, prompt_medium
from modalign.integrations.diffusers.family import Family, device_of, type_of
from modalign.integrations.diffusers.parts import Source, away, release, restore
from modalign.integrations.diffusers.routed import routed
from modalign.readers import Condition
from modalign.timeline import Timeline


@final
class PipelineDenoiser(Denoiser):
    """The network of a pipeline, with its autoencoder and its text encoders, which never train.

    family: how its parts are called.
    words: the modality of prompts.
    source: where the pipeline was loaded from; None where its parts cannot leave memory and come back.
    """

    def __init__(self, family: Family, *, words: str, source: Source | None = None) -> None:
        super().__init__()
        self.family, self.words, self.source = family, words, source
        self.process = family.process
        self.network = family.denoise
        self.frozen = nn.ModuleDict({name: nn.ModuleList(parts) for name, parts in family.readers.items()})
        self.frozen.requires_grad_(False).eval()
        self.readers = cast("Mapping[str, nn.Module]", dict(self.frozen.items()))
        self.facts = {**family.facts, **family.fitting.facts}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.frozen.eval()
        return self

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        found: list[Tensor] = []
        autoencoder = self.family.part(self.family.autoencoder)
        for medium in media:  # one at a time: an autoencoder needs far more memory than what it gives
            fitted = medium.tensors[FITTED][None].to(device_of(autoencoder))
            found += self.family.encode(fitted).float()
        return found

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        found: list[Condition] = []
        for prompt in prompts:  # one at a time: its numbers must not depend on what is beside it
            family = self.family.at(cast("Mapping[str, object]", prompt.extra[ASKED]))
            given = family.condition([cast(str, prompt.extra[WORDS])])
            found.append({name: value[0] for name, value in given.items()})
        return found

    def nothing(self) -> Medium:
        return prompt_medium("", self.words)

    def without(self, prompt: Medium) -> Medium:
        return prompt_medium("", self.words, cast("Mapping[str, object]", prompt.extra[ASKED]))

    @property
    def timeline(self) -> Timeline:
        return self.family.timeline

    @property
    def away(self) -> bool:
        return any(away(part) for part in self._parts.values())

    def release(self) -> None:
        if self.source is not None:
            for name, part in self._parts.items():
                release(part, name, self.source)

    def restore(self, device: torch.device | None = None) -> None:
        for part in self._parts.values():
            restore(part, device or device_of(self.network))

    @cached_property
    def _parts(self) -> dict[str, nn.Module]:
        """The readers, by their names in the pipeline."""
        inside = {id(part) for parts in self.family.readers.values() for part in parts}
        there = self.family.pipe.components.items()
        return {name: part for name, part in there if isinstance(part, nn.Module) and id(part) in inside}

    def sample(self, prompts: Sequence[Medium], sources: Sequence[torch.Generator], route: Route) -> Tensor:
        if self.away:
            raise ModelError(
                "media are made by parts of the pipeline that have left memory",
                got="precomputed features, and no text encoders or autoencoder",
                fix="leave precompute_features out",
            )
        words = [cast(str, one.extra[WORDS]) for one in prompts]
        guidance = self.family.unguided if route.guidance is None else route.guidance
        config = GenerationConfig(num_inference_steps=route.steps, guidance_scale=guidance)
        with routed(self.family, route):
            return torch.stack(self.family.make(words, list(sources), config))

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        kind = self._type
        given = {name: one.to(kind) if one.is_floating_point() else one for name, one in condition.items()}
        return self.family.predict(noisy.to(kind), time, given)

    @cached_property
    def _type(self) -> torch.dtype:
        return type_of(self.network)
