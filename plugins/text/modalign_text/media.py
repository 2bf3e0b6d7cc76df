"""How media get into a text: what a chat template is given for them, and the tokens their embeddings will replace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from modalign.batch import Medium
from modalign.content import Message, Part
from modalign.errors import DataError, ModelError
from modalign.roles import Encoded, EncodedSegment, EncodedSlot
from modalign_text.tokens import Tokens


@final
@dataclass(frozen=True, kw_only=True)
class Span:
    """The characters of a text that stand for one medium.

    part: the medium.
    old: where they began and ended before they were expanded.
    start, stop: where they are now.
    """

    part: Part
    old: tuple[int, int]
    start: int
    stop: int


@final
@dataclass(frozen=True, kw_only=True)
class Expansion:
    """A text with every medium written out in as many placeholders as it has embeddings."""

    text: str
    spans: tuple[Span, ...] = ()

    def at(self, place: int) -> int:
        """Where a place of the text before now is; a place inside a medium is at its end."""
        moved = 0
        for span in self.spans:
            if place <= span.old[0]:
                break
            if place < span.old[1]:
                return span.stop
            moved = span.stop - span.old[1]
        return place + moved


class MediaWriter(ABC):
    """Writes media into texts, for one model.

    takes: the modalities it can.
    makes: those that the model writes itself, in its responses.
    """

    takes: frozenset[str]
    makes: frozenset[str] = frozenset()

    @abstractmethod
    def said(self, part: Part) -> str | Mapping[str, object]:
        """What a chat template is given for a medium: characters of the content, or a block of its own."""

    @abstractmethod
    def plain(self, part: Part) -> str:
        """What stands for a medium outside any template."""

    @abstractmethod
    def expand(self, text: str, parts: Sequence[Part]) -> Expansion:
        """The text with its media written out.

        parts: the media in reading order; a `DataError` names both numbers where the text has others.
        """

    @abstractmethod
    def medium(self, part: Part) -> Medium:
        """A medium as its encoder reads it, decoded once for all sequences of a comparison."""

    def drawn(self, part: Part) -> tuple[EncodedSegment, Mapping[str, Medium]]:
        """The segment that scores a medium of a response, and the media it needs, by digest; of those it `makes`."""
        raise ModelError(f"this model makes no {part.modality}", got=type(self).__name__)

    def opening(self, part: Part) -> int:
        """How many tokens at the beginning of a medium's text the model says itself, and so are scored as words."""
        return 0

    def compare(self, parts: Sequence[Part]) -> None:  # noqa: B027 - who makes no media compares none
        """Raise where media that were made for one another differ by more than their fitting hides."""

    def behind(self, part: Part) -> tuple[Part, ...]:
        """What follows a medium as media of their own, from the same file: the sound of a clip."""
        return ()

    @abstractmethod
    def holds(self, token: int) -> bool:
        """Whether a token is one whose embedding a medium replaces."""

    def token(self, token: int) -> int:
        """The id the backbone reads for a token: a placeholder of ours may have no row in its table."""
        return token

    def finish(self, one: Encoded, order: Mapping[str, Sequence[str]]) -> Encoded:
        """A sequence, cut to its length, with what the family says of its tokens: positions, types.

        order: digests of the media in the sequence by modality, in reading order.
        """
        return one

    def slots(self, tokens: Tokens, expansion: Expansion) -> tuple[EncodedSlot, ...]:
        """The runs of tokens that the media of a text take."""
        found: list[EncodedSlot] = []
        for span in expansion.spans:
            places = [
                at for at in range(tokens.inside(span.start), tokens.covering(span.stop)) if self.holds(tokens.ids[at])
            ]
            found.extend(_runs(places, span.part.digest))
        return tuple(found)


def _runs(places: Sequence[int], digest: str) -> list[EncodedSlot]:
    runs: list[EncodedSlot] = []
    for number, at in enumerate(places):
        if runs and runs[-1].stop == at:
            runs[-1] = replace(runs[-1], stop=at + 1)
        else:
            runs.append(EncodedSlot(start=at, stop=at + 1, digest=digest, first=number))
    return runs


def unclosed(words: str, modalities: Iterable[str], field: str) -> DataError | None:
    """What is wrong with words of a response that open a medium; None where they open none."""
    for name in modalities:
        if (start := words.find(f"<|{name}|>")) >= 0:
            return DataError(
                f"the response opens {name} in words, and never closes it",
                field=field,
                got=f"...{words[max(0, start - 20) : start + len(name) + 24]}...",
                fix=f'give the medium as a block, {{"type": "{name}", ...}}: the token before it is written by itself; '
                "or remove the token",
            )
    return None


def media_of(messages: Sequence[Message]) -> list[Part]:
    """The parts that are not words, in reading order."""
    return [part for message in messages for part in message.parts if not isinstance(part.value, str)]


def with_tracks(messages: Sequence[Message], media: MediaWriter) -> tuple[Message, ...]:
    """The messages with what follows each of their media."""
    return tuple(
        replace(message, parts=tuple(one for part in message.parts for one in (part, *_behind(part, media))))
        for message in messages
    )


def _behind(part: Part, media: MediaWriter) -> tuple[Part, ...]:
    return () if isinstance(part.value, str) or part.modality not in media.takes else media.behind(part)


def ordered(one: Encoded) -> dict[str, list[str]]:
    """Digests of the media whose first embedding is in a sequence, by modality, in reading order."""
    found: dict[str, list[str]] = {}
    for slot in sorted(one.slots, key=lambda slot: slot.start):
        if slot.first == 0:
            found.setdefault(one.media[slot.digest].modality, []).append(slot.digest)
    return found


def spans_of(expansion: Expansion, messages: Sequence[Message], at: int) -> list[Span]:
    """Where the media of message ``at`` are: of each modality a template keeps the order."""
    before: Counter[str] = Counter(part.modality for part in media_of(messages[:at]))
    own: Counter[str] = Counter(part.modality for part in media_of(messages[at : at + 1]))
    seen: Counter[str] = Counter()
    found: list[Span] = []
    for span in expansion.spans:
        name = span.part.modality
        if before[name] <= seen[name] < before[name] + own[name]:
            found.append(span)
        seen[name] += 1
    return found


def between(start: int, stop: int, taken: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The runs of ``start`` to ``stop`` that lie in none of the runs taken."""
    for begin, end in sorted(taken):
        if start < begin:
            yield start, min(begin, stop)
        start = max(start, end)
    if start < stop:
        yield start, stop
