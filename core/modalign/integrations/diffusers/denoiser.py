"""A pipeline's parts as the denoiser of a decoder.

b samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final, Self, cast, final

import torch
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.config import GenerationConfig
from modalign.connectors.conditioner import Wanted, Wide
from modalign.content import Part
from modalign.decoders.backprop import Route
from modalign.decoders.denoiser import Denoiser
from modalign.decoders.generating import ASKED, FITTED, WORDS, prompt_medium
from modalign.decoders.readers import Condition
from modalign.errors import ModelError
from modalign.integrations.diffusers.family import Family, device_of, type_of
from modalign.integrations.diffusers.parts import away, put, release, restore, standing, take
from modalign.integrations.diffusers.routed import routed
from modalign.timeline import Timeline

_SAID: Final = ("two red circles", "a sound in the evening")  #: prompts of which all that is said differs


@final
class PipelineDenoiser(Denoiser):
    """The network of a pipeline, with its autoencoder and its text encoders, which never train.

    family: how its parts are called.
    words: the modality of prompts.
    source: the folder that the pipeline was loaded from; None where its parts cannot leave memory and come back.
    """

    def __init__(self, family: Family, *, words: str, source: Path | None = None) -> None:
        super().__init__()
        self.family, self.words, self.source = family, words, source
        self.process = family.process
        self.network = family.denoise
        self.frozen = nn.ModuleDict({name: nn.ModuleList(parts) for name, parts in family.readers.items()})
        self.frozen.requires_grad_(False).eval()
        self.readers = cast("Mapping[str, nn.Module]", dict(self.frozen.items()))
        self.facts = {**family.facts, **family.fitting.facts}
        self._idle: dict[str, Mapping[str, nn.Parameter]] = {}  # weights of text encoders that nothing asks

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
        self.check_words()
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

    def hears_states(self) -> None:
        """The weights of the text encoders stay where they were loaded, and go to no accelerator; see `speaking`."""
        for name in sorted((self._parts.keys() & set(self.family.texts)) - self._idle.keys()):
            self._idle[name] = take(self._parts[name])

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Within it the text encoders have their weights though nothing asks them: the pipeline is saved whole."""
        for name, weights in self._idle.items():
            put(self._parts[name], weights)
        try:
            yield
        finally:
            for name in self._idle:
                take(self._parts[name])

    def check_words(self) -> None:
        """Raise where no prompt can be read any more."""
        if self._idle:
            raise ModelError(
                "this generator stands behind a language model, whose states say what it makes",
                got="a prompt",
                fix="ask the whole model, or load the generator alone",
            )

    @cached_property
    def _parts(self) -> dict[str, nn.Module]:
        """The readers, by their names in the pipeline."""
        inside = {id(part) for parts in self.family.readers.values() for part in parts}
        there = self.family.pipe.components.items()
        return {name: part for name, part in there if isinstance(part, nn.Module) and id(part) in inside}

    def sample(self, prompts: Sequence[Medium], sources: Sequence[torch.Generator], route: Route) -> Tensor:
        self.check_words()
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

    @torch.no_grad()
    def wanted(self) -> Wanted:
        if not self.family.spoken:
            raise ModelError(
                "no states of a backbone can stand for the prompt of this family",
                got=type(self.family).__name__,
                fix="use another generator, or say in the family which arguments of its pipeline take conditions",
            )
        some, other = ({name: one[0] for name, one in self.family.condition([said]).items()} for said in _SAID)
        long = {one.shape[0] for one in some.values() if one.ndim == 2}
        masks = {name: one.dtype for name, one in some.items() if one.ndim == 1 and _counts(one, long)}
        same = {name for name, one in some.items() if one.shape == other[name].shape and one.equal(other[name])}
        rest = {name: one for name, one in some.items() if name not in masks and name not in same}
        wide = {name: Wide(width=one.shape[-1], rms=_size(one)) for name, one in rest.items()}
        return Wanted(
            sequences={name: wide[name] for name, one in rest.items() if one.ndim == 2},
            vectors={name: wide[name] for name, one in rest.items() if one.ndim == 1},
            masks=masks,
            given={name: some[name] for name in same - masks.keys()},
            most=self.family.exactly,
            exactly=self.family.exactly is not None,
        )

    @torch.no_grad()
    def paint(
        self, condition: Condition, nothing: Condition, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        self.restore()
        given, against = (
            {name: one.to(self._type) if one.is_floating_point() else one for name, one in said.items()}
            for said in (condition, nothing)
        )
        family = self.family.saying(given, against)
        with standing([self._parts[name] for name in self._idle], like=self.network):
            return family.parts(family.make([""] * len(sources), list(sources), config))

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        kind = self._type
        given = {name: one.to(kind) if one.is_floating_point() else one for name, one in condition.items()}
        return self.family.predict(noisy.to(kind), time, given)

    @cached_property
    def _type(self) -> torch.dtype:
        return type_of(self.network)


def _counts(one: Tensor, long: Collection[int]) -> bool:
    """Whether a condition says which of the vectors of a sequence there are."""
    return not one.is_floating_point() or (len(one) in long and bool(((one == 0) | (one == 1)).all()))


def _size(one: Tensor) -> float:
    """Root mean square of the values that are not nothing."""
    said = one.double()[one != 0]
    return said.square().mean().sqrt().item() if len(said) else 1.0
