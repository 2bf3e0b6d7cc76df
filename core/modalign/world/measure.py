"""What the oracle says of responses: how often they show what was asked, overall and by attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from modalign.content import Message, Response
from modalign.evaluation.intervals import wilson
from modalign.roles import Depiction
from modalign.world.concept import EVERY, Concept, match
from modalign.world.prompts import asked
from modalign.world.questions import questioned, read_answer


@final
@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of ``count`` trials with its 95 % interval (Wilson's).

    >>> rate = Rate(hits=8, count=10)
    >>> round(rate.value, 2), round(rate.low, 2), round(rate.high, 2)
    (0.8, 0.49, 0.94)
    """

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.hits / self.count if self.count else math.nan

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return wilson(self.value, self.count)[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return wilson(self.value, self.count)[1]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the oracle says of one response.

    asked: the concept of the prompt, or what is true of the medium it asks about.
    shown: what the response shows or says; None where it is unreadable.
    """

    asked: Concept
    shown: Concept | None

    @property
    def right(self) -> Mapping[str, bool]:
        """For each attribute asked for, whether it is shown as asked; unreadable shows nothing."""
        return match(self.asked, self.shown)

    @property
    def accurate(self) -> bool:
        """Whether every attribute is right."""
        return all(self.right.values())

    @property
    def reward(self) -> float:
        """The mean of the share of attributes that are right and of whether all are: from 0 to 1."""
        right = self.right
        share = sum(right.values()) / len(right) if right else 1.0
        return (share + float(self.accurate)) / 2


@final
@dataclass(frozen=True, kw_only=True)
class Measure:
    """What the oracle says of many responses.

    accuracy: all attributes right; an unreadable response is wrong.
    unreadable: no concept could be read, or the parts of the response contradict one another.
    attributes: how often each attribute that was asked for is right.
    verdicts: one per response.
    """

    accuracy: Rate
    unreadable: Rate
    attributes: Mapping[str, Rate]
    verdicts: tuple[Verdict, ...]


def read(response: Response, depictions: Mapping[str, Depiction]) -> Concept | None:
    """What the parts a model wrote show together; None where one is unreadable, or they contradict one another.

    depictions: by modality; a part of any other modality is unreadable.
    """
    shown = Concept()
    for part in response.segments():
        depiction = depictions.get(part.modality)
        found = None if depiction is None else depiction.read(part)
        merged = None if found is None else shown.merge(found)
        if merged is None:
            return None
        shown = merged
    return shown if shown.attributes else None


def judge(prompt: Sequence[Message], response: Response, depictions: Mapping[str, Depiction]) -> Verdict | None:
    """The verdict on a response to a prompt of this world; None where the prompt is none.

    What the user says last is what counts: a request for a concept, or a question about the part just before it. What
    that part shows is read there; where it is unreadable, or shows nothing of what is asked for, there is no verdict.
    """
    parts = [part for message in prompt if message.role == "user" for part in message.parts]
    last = parts[-1].value if parts else None
    if not isinstance(last, str):
        return None
    if (concept := asked(last)) is not None:
        return Verdict(asked=concept, shown=read(response, depictions))
    names, medium = questioned(last), parts[-2] if len(parts) > 1 else None
    depiction = None if medium is None else depictions.get(medium.modality)
    if names is None or medium is None or depiction is None:
        return None
    truth = depiction.read(medium)
    if truth is None or not set(names) <= set(truth.attributes):
        return None
    return Verdict(asked=truth.only(names), shown=_answered(response, names))


def _answered(response: Response, names: Sequence[str]) -> Concept | None:
    """What the words of a response say of attributes; None where it is anything but words, or they are unreadable."""
    words = [part.value for part in response.segments()]
    said = [one for one in words if isinstance(one, str)]
    return read_answer(" ".join(said), names) if len(said) == len(words) else None


def measure(verdicts: Sequence[Verdict]) -> Measure:
    """Rates over many verdicts."""
    rights = [verdict.right for verdict in verdicts]
    names = [name for name in EVERY if any(name in right for right in rights)]
    return Measure(
        accuracy=Rate(hits=sum(verdict.accurate for verdict in verdicts), count=len(verdicts)),
        unreadable=Rate(hits=sum(verdict.shown is None for verdict in verdicts), count=len(verdicts)),
        attributes={
            name: Rate(
                hits=sum(right.get(name, False) for right in rights), count=sum(name in right for right in rights)
            )
            for name in names
        },
        verdicts=tuple(verdicts),
    )
