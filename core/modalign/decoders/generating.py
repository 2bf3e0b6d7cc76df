"""Comparisons of media to what a generator is scored on: the prompt's words, and each medium fitted to its size."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from torch import Tensor

from modalign.batch import Medium
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Part, Response
from modalign.errors import DataError, ModelError
from modalign.frozen import empty
from modalign.registry import registry
from modalign.roles import Adapters, Assembly, Content, Encoded, EncodedSegment, MediaSettings, Preparer
from modalign.timeline import Spans, no_time, nothing_scored

if TYPE_CHECKING:
    from modalign.model import Model

WORDS: Final = "words"  #: the name under which a prompt's words lie in its medium
ASKED: Final = "asked"  #: the name under which lies what else is asked for beside a prompt's words
FITTED: Final = "fitted"  #: the name under which a fitted medium lies in its medium


class Fit(ABC):
    """Decoded media to what an autoencoder reads, all of the size that a model makes; sent to worker processes.

    asked: settings of that size that the prompt must say too, where a network is told of them by its condition.
    """

    asked: Mapping[str, object] = empty()

    @abstractmethod
    def __call__(self, content: Content) -> Tensor:
        """One medium, without a batch axis; a `DataError` where it cannot be fitted."""

    def check(self, contents: Sequence[Content]) -> None:  # noqa: B027 - a modality without such a policy has none
        """Raise a `DataError` where media of one comparison differ by more than their fitting hides."""

    def gap(self, contents: Sequence[Content]) -> tuple[float, ...]:
        """How far media are from this size: of several sizes the one with the least is nearest."""
        return (0.0,)

    def among(self, contents: Sequence[Content]) -> Fit:
        """The fit to one size, the same for media that are compared."""
        return self

    def seconds(self, fitted: Tensor, rate: float | None) -> float | None:
        """How long a fitted medium lasts; None where it has no time.

        rate: that media are decoded at.
        """
        return None

    @property
    def facts(self) -> Mapping[str, object]:
        """What fitted media depend on, by name."""
        return dict(vars(self))


@final
@dataclass(frozen=True)
class Buckets(Fit):
    """Media to the nearest of several sizes.

    fits: to each of them.
    """

    fits: tuple[Fit, ...]

    def __call__(self, content: Content) -> Tensor:
        return self.among([content])(content)

    def check(self, contents: Sequence[Content]) -> None:
        self.among(contents).check(contents)

    def among(self, contents: Sequence[Content]) -> Fit:
        return min(self.fits, key=lambda one: one.gap(contents)) if contents else self.fits[0]

    @property
    def facts(self) -> Mapping[str, object]:
        return {"buckets": [dict(one.facts) for one in self.fits]}


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
        """One `Encoded` per response; they have no tokens, so none is too long.

        The two of a pair are fitted to one size. Other responses are judged each alone, and some may be another
        prompt's: each is fitted to the size that is nearest to itself.
        """
        words = self.prompt(comparison.prompt)
        names = ("chosen", "rejected") if comparison.kind == "pair" else ("response",) * len(comparison.responses)
        media: list[list[tuple[Part, Content]]] = []
        for name, response in zip(names, comparison.responses, strict=True):
            with _named(name):
                media.append([(part, self._decode(part)) for part in self._parts(response)])
        compared = [content for one in media for _, content in one] if comparison.kind == "pair" else None
        found: list[Encoded] = []
        for name, one in zip(names, media, strict=True):
            with _named(name):
                fit = self.fit.among([content for _, content in one] if compared is None else compared)
                found.append(self._encoded(words, one, fit))
        if compared is not None:
            self.fit.check(compared)
        return tuple(found)

    def ask(self, comparison: Comparison) -> Encoded:
        prompt = prompt_medium(self.prompt(comparison.prompt), self.words)
        yet = EncodedSegment(modality=self.modality, decoder=self.modality, kind="draw", given=prompt.digest)
        return Encoded(tokens=(), prompt=0, segments=(yet,), media={prompt.digest: prompt})

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

    def compare(self, parts: Sequence[Part]) -> None:
        """Raise where media that are compared differ by more than their fitting hides."""
        self.fit.check([self._decode(part) for part in parts])

    def target(self, part: Part) -> Medium:
        """A medium of a response as it is scored, fitted to the size that is nearest to it."""
        content = self._decode(part)
        fit = self.fit.among([content])
        fitted = fit(content)
        self._spans(part, fit, fitted)
        return Medium(modality=self.modality, tensors={FITTED: fitted}, digest=self._digest(part, fit))

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

    def _encoded(self, words: str, media: Sequence[tuple[Part, Content]], fit: Fit) -> Encoded:
        prompt = prompt_medium(words, self.words, fit.asked)
        found = {prompt.digest: prompt}
        segments: list[EncodedSegment] = []
        for part, content in media:
            digest, fitted = self._digest(part, fit), fit(content)
            found[digest] = Medium(modality=self.modality, tensors={FITTED: fitted}, digest=digest)
            segments.append(
                EncodedSegment(
                    modality=self.modality,
                    decoder=self.modality,
                    kind="draw",
                    digest=digest,
                    given=prompt.digest,
                    spans=self._spans(part, fit, fitted),
                )
            )
        return Encoded(tokens=(), prompt=0, segments=tuple(segments), media=found)

    def _spans(self, part: Part, fit: Fit, fitted: Tensor) -> Spans:
        """The seconds that are scored; a `DataError` where the model is given none of them."""
        if part.spans:
            if (seconds := fit.seconds(fitted, self.rate)) is None:
                raise no_time(self.modality)
            if all(start >= seconds for start, _ in part.spans):
                raise nothing_scored(part.spans, seconds)
        return part.spans

    def _digest(self, part: Part, fit: Fit) -> str:
        """Of a medium as it is decoded and fitted: latents are kept by it."""
        facts = {**fit.facts, **self.settings.model_dump(), "rate": self.rate}
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

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        self.store(folder, merge=merge)

    @abstractmethod
    def store(self, folder: Path, *, merge: bool = False) -> None:
        """Write the generator, or its adapters, in the format its library reads; `Assembly.save` says how."""

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


def prompt_medium(words: str, modality: str, asked: Mapping[str, object] = empty()) -> Medium:
    """A prompt as a medium, known by its words and by what else it asks for.

    asked: settings of the size, where they are part of the condition.
    """
    digest = Part(modality=modality, value=words).digest
    if asked:
        digest = hashlib.sha256(f"{digest}\0{json.dumps(dict(asked), sort_keys=True)}".encode()).hexdigest()
    return Medium(modality=modality, tensors={}, digest=digest, extra={WORDS: words, ASKED: asked})


@contextmanager
def _named(field: str) -> Iterator[None]:
    """Within it what is wrong with data is said of this field."""
    try:
        yield
    except DataError as error:
        raise error.at(field=field) from error
