"""A prompt and its responses: a pair is two, an unpaired example one, a group many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, final

from modalign.content import Fact, Message, Response
from modalign.frozen import empty

Kind = Literal["pair", "unpaired", "group", "prompt"]

_COUNTS: Mapping[str, tuple[int, int | None]] = {
    "pair": (2, 2),
    "unpaired": (1, 1),
    "group": (1, None),
    "prompt": (0, 0),
}


@final
@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a comparison was read: a file (or data set) and a row, counted from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A prompt and its responses, with what people said of them.

    prompt: messages, oldest first.
    responses: a pair's are (chosen, rejected).
    kind: what the responses are to one another.
    margin: how much better the chosen is, in reward.
    preferences: by dimension, the probability that the first response is the better one.
    weight: of this comparison in the loss.
    id: a name the data gives it.
    origin: the row it was read from.
    facts: what is known of it that nothing is trained on: what kind of prompt it is.

    >>> from modalign.content import Message, Part, Response
    >>> words = lambda role, text: Message(role=role, parts=(Part(modality="words", value=text),))
    >>> pair = Comparison.pair([words("user", "2+2?")], Response(messages=(words("assistant", "4"),)),
    ...                        Response(messages=(words("assistant", "5"),)))
    >>> pair.swap().chosen == pair.rejected
    True
    """

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    kind: Kind
    margin: float | None = None
    preferences: Mapping[str, float] = field(default_factory=empty)
    weight: float = 1.0
    id: str | None = None
    origin: Origin | None = None
    facts: Mapping[str, Fact] = field(default_factory=empty)

    def __post_init__(self) -> None:
        least, most = _COUNTS[self.kind]
        found = len(self.responses)
        if found < least or (most is not None and found > most):
            wanted = str(least) if least == most else f"at least {least}"
            msg = f"a comparison of kind {self.kind!r} has {wanted} response(s), not {found}"
            raise ValueError(msg)

    @property
    def key(self) -> str:
        """What its draws are seeded by: its id, else the row it came from, else its prompt's content."""
        return self.id or (
            str(self.origin) if self.origin else "/".join(p.digest for m in self.prompt for p in m.parts)
        )

    @classmethod
    def pair(
        cls,
        prompt: Sequence[Message],
        chosen: Response,
        rejected: Response,
        *,
        margin: float | None = None,
    ) -> Comparison:
        """A preference pair."""
        return cls(prompt=tuple(prompt), responses=(chosen, rejected), kind="pair", margin=margin)

    @classmethod
    def unpaired(cls, prompt: Sequence[Message], response: Response) -> Comparison:
        """One response, whose label (if it has one) says whether it is desirable."""
        return cls(prompt=tuple(prompt), responses=(response,), kind="unpaired")

    @classmethod
    def group(cls, prompt: Sequence[Message], responses: Sequence[Response]) -> Comparison:
        """Many responses to one prompt, each with its reward."""
        return cls(prompt=tuple(prompt), responses=tuple(responses), kind="group")

    @classmethod
    def prompt_only(cls, prompt: Sequence[Message]) -> Comparison:
        """A prompt that a policy will answer."""
        return cls(prompt=tuple(prompt), responses=(), kind="prompt")

    @property
    def chosen(self) -> Response:
        """The better response of a pair."""
        return self._member(0)

    @property
    def rejected(self) -> Response:
        """The worse response of a pair."""
        return self._member(1)

    def swap(self) -> Comparison:
        """The same pair with the preference turned round, dimensions and margin with it."""
        return replace(
            self,
            responses=(self.rejected, self.chosen),
            margin=None if self.margin is None else -self.margin,
            preferences={name: 1.0 - p for name, p in self.preferences.items()},
        )

    def _member(self, index: int) -> Response:
        if self.kind != "pair":
            msg = f"only a pair has chosen and rejected; this comparison is of kind {self.kind!r}"
            raise ValueError(msg)
        return self.responses[index]
