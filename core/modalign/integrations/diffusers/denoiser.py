"""A pipeline's parts as the denoiser of a decoder.

b samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self, cast, final

import torch
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.denoiser import Condition, Denoiser
from modalign.generating import FITTED, WORDS, prompt_medium
from modalign.integrations.diffusers.family import Family, device_of, type_of


@final
class PipelineDenoiser(Denoiser):
    """The network of a pipeline, with its autoencoder and its text encoders, which never train.

    family: how its parts are called.
    words: the modality of prompts.
    """

    def __init__(self, family: Family, *, words: str) -> None:
        super().__init__()
        self.family, self.words = family, words
        self.process = family.process
        self.network = family.denoise
        self.frozen = nn.ModuleDict({name: nn.ModuleList(parts) for name, parts in family.readers.items()})
        self.frozen.requires_grad_(False).eval()
        self.readers = cast("Mapping[str, nn.Module]", dict(self.frozen.items()))
        self.facts = {**family.facts, **family.fit.facts}

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
            given = self.family.condition([cast(str, prompt.extra[WORDS])])
            found.append({name: value[0] for name, value in given.items()})
        return found

    def nothing(self) -> Medium:
        return prompt_medium("", self.words)

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        kind = self._type
        given = {name: one.to(kind) if one.is_floating_point() else one for name, one in condition.items()}
        return self.family.predict(noisy.to(kind), time, given)

    @cached_property
    def _type(self) -> torch.dtype:
        return type_of(self.network)
