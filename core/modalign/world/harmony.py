"""What the oracle says of a response of several modalities: which parts there are, what each shows, what agrees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

from modalign.content import Message, Part, Response
from modalign.roles import Depiction
from modalign.world.concept import Concept
from modalign.world.measure import Rate, Verdict
from modalign.world.prompts import Request, asked_in
from modalign.world.together import Script, script


@final
@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the oracle says of a response of several modalities.

    asked: the right response.
    found: the modalities of its parts.
    shown: by modality that was asked for, what its part shows; None where it is unreadable, or not there.
    """

    asked: Script
    found: tuple[str, ...]
    shown: Mapping[str, Concept | None]

    @property
    def selected(self) -> bool:
        """Whether its parts are those that were asked for, in their order."""
        return self.found == tuple(name for name, _ in self.asked.parts)

    @property
    def followed(self) -> Mapping[str, bool]:
        """By modality, whether its part shows all that was asked of it."""
        return {name: Verdict(asked=one, shown=self.shown.get(name)).accurate for name, one in self.asked.parts}

    @property
    def agreed(self) -> bool | None:
        """Whether parts that carry the same attributes show the same; None where no two of them do."""
        pairs = [
            (one, other, sorted({*wanted.attributes} & {*also.attributes}))
            for (one, wanted), (other, also) in combinations(self.asked.parts, 2)
        ]
        pairs = [pair for pair in pairs if pair[2]]
        if not pairs:
            return None
        return all(_same(self.shown.get(one), self.shown.get(other), names) for one, other, names in pairs)

    @property
    def reward(self) -> float:
        """The mean of what each part is worth, of the selection, and of the agreement where there is any to have: from
        0 to 1. A part is worth the mean of the share of its attributes that are right and of whether all are."""
        each = [Verdict(asked=concept, shown=self.shown.get(name)).reward for name, concept in self.asked.parts]
        parts = [sum(each) / len(each), float(self.selected)]
        if self.agreed is not None:
            parts.append(float(self.agreed))
        return sum(parts) / len(parts)


def _same(one: Concept | None, other: Concept | None, names: Sequence[str]) -> bool:
    if one is None or other is None:
        return False
    return all(one.said.get(name) is not None and one.said.get(name) == other.said.get(name) for name in names)


def judge_together(prompt: Sequence[Message], response: Response, depictions: Mapping[str, Depiction]) -> Seen | None:
    """What is right about a response to a request for several modalities; None where the prompt is none.

    What the request leaves to a medium is read in the part before it. Of two parts of one modality in the response the
    first counts.
    """
    said = [part for message in prompt if message.role == "user" for part in message.parts]
    words = said[-1].value if said else None
    request = asked_in(words) if isinstance(words, str) else None
    if request is None or not {*request.modalities} <= depictions.keys():
        return None
    concept = _whole(request, said[-2] if len(said) > 1 else None, depictions)
    if concept is None:
        return None
    modalities = request.modalities
    parts = [part for part in response.segments() if not (isinstance(part.value, str) and not part.value.strip())]
    first: dict[str, Part] = {}
    for part in parts:
        first.setdefault(part.modality, part)
    shown = {name: depictions[name].read(first[name]) if name in first else None for name in modalities}
    return Seen(
        asked=script(concept, modalities, depictions), found=tuple(part.modality for part in parts), shown=shown
    )


def _whole(request: Request, medium: Part | None, depictions: Mapping[str, Depiction]) -> Concept | None:
    """What a request and the medium before it ask for; None where the medium does not say its share."""
    if not request.shown:
        return request.concept
    depiction = None if medium is None else depictions.get(medium.modality)
    read = None if medium is None or depiction is None else depiction.read(medium)
    if read is None or not {*request.shown} <= {*read.attributes}:
        return None
    return request.concept.merge(read.only(request.shown))


@final
@dataclass(frozen=True, kw_only=True)
class Harmony:
    """What the oracle says of many such responses.

    selection: the parts are those that were asked for.
    agreement: parts that carry the same attributes show the same.
    following: by modality, its part shows all that was asked of it.
    whole: all of this at once.
    reward: the mean reward.
    """

    selection: Rate
    agreement: Rate
    following: Mapping[str, Rate]
    whole: Rate
    reward: float


def outcomes(seen: Sequence[Seen]) -> dict[str, list[bool | None]]:
    """By what is asked, whether each response does it: `selection`, `agreement`, each modality, and `whole`, which is
    selection and all modalities; None where it was not asked for."""
    followed = [one.followed for one in seen]
    names = sorted({name for one in followed for name in one})
    return {
        "whole": [one.selected and all(one.followed.values()) for one in seen],
        "selection": [one.selected for one in seen],
        "agreement": [one.agreed for one in seen],
        **{name: [one.get(name) for one in followed] for name in names},
    }


def harmony(seen: Sequence[Seen]) -> Harmony:
    """Rates over many responses."""
    rates = {name: _rate(found) for name, found in outcomes(seen).items()}
    return Harmony(
        whole=rates.pop("whole"),
        selection=rates.pop("selection"),
        agreement=rates.pop("agreement"),
        following=rates,
        reward=sum(one.reward for one in seen) / len(seen) if seen else math.nan,
    )


def _rate(found: Sequence[bool | None]) -> Rate:
    asked = [one for one in found if one is not None]
    return Rate(hits=sum(asked), count=len(asked))
