"""Comparisons of media to what a generator is scored on: the prompt's words, and each medium fitted to its size."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from torch import Tensor

from modalign.batch import Medium
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Part, Response
from modalign.errors import DataError, ModelError
from modalign.registry import registry
from modalign.roles import Adapters, Assembly, Content, Encoded, EncodedSegment, MediaSettings, Preparer

if TYPE_CHECKING:
    from modalign.model import Model

WORDS: Final = "words"  #: the name under which a prompt's words lie in its medium
FITTED: Final = "fitted"  #: the name under which a fitted medium lies in its medium


class Fit(ABC):
    """Decoded media to what an autoencoder reads, all of the size that a model makes; sent to worker processes."""

    @abstractmethod
    def __call__(self, content: Content) -> Tensor:
        """One medium, without a batch axis; a `DataError` where it cannot be fitted."""

    def check(self, contents: Sequence[Content]) -> None:  # noqa: B027 - a modality without such a policy has none
        """Raise a `DataError` where media of one comparison differ by more than their fitting hides."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What fitted media depend on, by name."""
        return dict(vars(self))


@final
@dataclass(frozen=True)
class GeneratorPreparer(Preparer):
    """A prompt in words, and responses of media of one modality.

    modality: of the responses.
    words: the modality of prompts.
    fit: media to what the autoencoder reads.
    settings: how media are decoded.
    rate: samples per second that media are decoded at; None where they have none, or keep their own.
    """

    modality: str
    words: str
    fit: Fit
    settings: MediaSettings
    rate: float | None = None

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        """One `Encoded` per response; they have no tokens, so none is too long."""
        prompt = prompt_medium(self.prompt(comparison.prompt), self.words)
        names = ("chosen", "rejected") if comparison.kind == "pair" else ("response",) * len(comparison.responses)
        found: list[Encoded] = []
        contents: list[Content] = []
        for name, response in zip(names, comparison.responses, strict=True):
            try:
                media = [(part, self._decode(part)) for part in self._parts(response)]
                encoded = self._encoded(prompt, media)
            except DataError as error:
                raise error.at(field=name) from error
            contents += [content for _, content in media]
            found.append(encoded)
        self.fit.check(contents)
        return tuple(found)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The words of a prompt: what its messages ask for, one under the other."""
        for message in messages:
            for part in message.parts:
                if part.modality != self.words:
                    raise DataError(
                        "this model reads words, and no media",
                        field="prompt",
                        got=f"a part of {part.modality}",
                        fix=f"leave it out, or train a model that takes {part.modality}",
                    )
        return "\n".join(str(part.value) for message in messages for part in message.parts)

    def _parts(self, response: Response) -> list[Part]:
        found: list[Part] = []
        for part in response.parts():
            if part.modality != self.modality:
                raise DataError(
                    f"this model makes media of {self.modality} and nothing else",
                    got=f"a part of {part.modality}",
                    fix=f"give responses that are of {self.modality} alone",
                )
            found.append(part)
        return found

    def _decode(self, part: Part) -> Content:
        return registry.modality(self.modality).decode(part, self.settings, rate=self.rate)

    def _encoded(self, prompt: Medium, media: Sequence[tuple[Part, Content]]) -> Encoded:
        found = {prompt.digest: prompt}
        segments: list[EncodedSegment] = []
        for part, content in media:
            digest = self._digest(part)
            found[digest] = Medium(modality=self.modality, tensors={FITTED: self.fit(content)}, digest=digest)
            segments.append(
                EncodedSegment(
                    modality=self.modality, decoder=self.modality, kind="draw", digest=digest, given=prompt.digest
                )
            )
        return Encoded(tokens=(), prompt=0, segments=tuple(segments), media=found)

    def _digest(self, part: Part) -> str:
        """Of a medium as it is decoded and fitted: latents are kept by it."""
        facts = {**self.fit.facts, **self.settings.model_dump(), "rate": self.rate}
        return hashlib.sha256(f"{part.digest}\0{json.dumps(facts, sort_keys=True, default=str)}".encode()).hexdigest()


class GeneratorAssembly(Assembly, ABC):
    """A model that answers each prompt with one medium.

    words: how prompts are read; its preparer.
    """

    def __init__(self, preparer: GeneratorPreparer, adapters: Adapters | None) -> None:
        self.preparer = self.words = preparer
        self.adapters = adapters
        self.takes = frozenset({preparer.words})
        self.gives = frozenset({preparer.modality})

    @abstractmethod
    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        """A medium for each prompt.

        first: the number of the first prompt: one has the same noise whatever comes with it.
        """

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        from modalign.training.reference import evaluating

        words = [self.words.prompt(prompt) for prompt in prompts]
        found: list[Response] = []
        with evaluating(model):
            for first in range(0, len(words), config.batch_size):
                some = words[first : first + config.batch_size]
                parts = self.write(some, config, first)
                if len(parts) != len(some):
                    raise ModelError(
                        "the model gave another number of media than there are prompts",
                        got=f"{len(parts)} for {len(some)}",
                        fix="set batch_size=1",
                    )
                found += [Response(messages=(Message(role="assistant", parts=(part,)),)) for part in parts]
                if progress is not None:
                    progress(len(some))
        return found


def prompt_medium(words: str, modality: str) -> Medium:
    """A prompt as a medium, known by its words."""
    part = Part(modality=modality, value=words)
    return Medium(modality=modality, tensors={}, digest=part.digest, extra={WORDS: words})
