"""The oracle world in several modalities at once: one response of words and media, and what is right about it.

A request names modalities in an order, and attributes. A right response has these parts and no others; each shows all
that it can carry of what was asked; and where two carry the same attribute, they agree. Any of this may be wrong in a
response, and so be what a preference is about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Final, final

from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept, split
from modalign.world.measure import Rate, Verdict
from modalign.world.preferences import MISTAKES, Kind, comparison
from modalign.world.prompts import ask, asked

TOGETHER: Final = "together"  #: what rows of several modalities are called by: `together/KIND`

_SELECTION: Final = 0.25  #: share of defects that are a part too few or of another modality
_REQUEST: Final = re.compile(r"\s*Show me this in ([a-z, ]+):(.*)", re.S)


@final
@dataclass(frozen=True, kw_only=True)
class Script:
    """What the parts of a response are to be, in their order.

    parts: the modality of each, and what it shows.
    """

    parts: tuple[tuple[str, Concept], ...]

    def defects(self, known: Sequence[str]) -> list[tuple[str, ...]]:
        """What can be wrong with it: an attribute of a part, `("1", "colour")`, or which parts there are, `("1",)`.

        known: modalities there are.
        """
        shown = [(str(at), name) for at, (_, concept) in enumerate(self.parts) for name in concept.attributes]
        return [*shown, *((str(at),) for at in range(len(self.parts)) if len(known) > len(self.parts))]

    def broken(
        self, defect: tuple[str, ...], known: Mapping[str, Depiction], concept: Concept, random: Random
    ) -> Script:
        """The same with one defect.

        concept: what was asked for, of which a part of another modality shows what it can.
        """
        parts, at = list(self.parts), int(defect[0])
        if len(defect) > 1:
            parts[at] = (parts[at][0], parts[at][1].violate(defect[1], random))
            return replace(self, parts=tuple(parts))
        others = sorted(known.keys() - {name for name, _ in parts})
        other = random.choice(others)
        parts[at] = (other, concept.only(known[other].attributes))
        return replace(self, parts=tuple(parts))


@final
@dataclass(frozen=True, kw_only=True)
class Together:
    """The world as several modalities show it.

    depictions: by modality.
    words: name of the modality prompts are made of.
    seed: of everything drawn. Which concepts are held out does not depend on it.
    mistakes: share of the SFT examples with one defect.
    """

    depictions: Mapping[str, Depiction]
    words: str
    seed: int = 0
    mistakes: float = MISTAKES

    def rows(self, kind: Kind, size: int, *, held_out: bool = False) -> list[Comparison]:
        """Comparisons of one kind, as `World.rows` has them: a defect is what a violated attribute is there."""
        return [self._row(kind, number, held_out) for number in range(size)]

    def _row(self, kind: Kind, number: int, held_out: bool) -> Comparison:
        random = Random(f"{self.seed}/{TOGETHER}/{kind}/{held_out}/{number}")
        modalities = self._chosen(random)
        concept = random.choice(split(self.names(modalities))[held_out])
        right = script(concept, modalities, self.depictions)
        seed = random.getrandbits(31)  # shared by all responses, so that they differ in what was asked for only
        shown = [self._answer(one, seed) for one in self._scripts(kind, right, concept, random)]
        source = f"oracle/{TOGETHER}/{kind}{'-test' if held_out else ''}"
        prompt = Message(role="user", parts=(Part(modality=self.words, value=ask_in(concept, modalities)),))
        return comparison(source, number, self.seed, prompt, shown)

    def names(self, modalities: Sequence[str]) -> frozenset[str]:
        """The attributes that are asked of these modalities: what their media carry, and a sentence can say."""
        media = [name for name in modalities if name != self.words]
        return frozenset(name for one in media for name in self.depictions[one].attributes if name in VALUES)

    def _chosen(self, random: Random) -> tuple[str, ...]:
        """Two or more modalities in some order, at least one of them media."""
        known = sorted(self.depictions)
        every = [one for size in range(2, len(known) + 1) for one in combinations(known, size)]
        chosen = list(random.choice(every))
        random.shuffle(chosen)
        return tuple(chosen)

    def _scripts(self, kind: Kind, right: Script, concept: Concept, random: Random) -> list[Script]:
        defects = self._defects(right, random)
        match kind:
            case "prompts":
                return []
            case "sft":
                wrong = random.random() < self.mistakes
                return [right.broken(defects[0], self.depictions, concept, random) if wrong else right]
            case "clean":
                return [right, right.broken(defects[0], self.depictions, concept, random)]
            case "shared-defect":
                chosen = right.broken(defects[0], self.depictions, concept, random)
                return [chosen, chosen.broken(defects[1], self.depictions, concept, random)]

    def _defects(self, right: Script, random: Random) -> list[tuple[str, ...]]:
        """Two defects, of which one at most is which parts there are; they are of different places."""
        every = right.defects(sorted(self.depictions))
        attributes = [one for one in every if len(one) > 1]
        parts = [one for one in every if len(one) == 1]
        first = random.choice(attributes)
        # of another attribute: two parts that are wrong alike would agree
        second = random.choice([one for one in attributes if one[1] != first[1]])
        if parts and random.random() < 2 * _SELECTION:
            apart = [one for one in parts if one[0] != first[0]] or parts
            second = random.choice(apart)
        found = [first, second]
        random.shuffle(found)
        # a part of another modality does not show what was wrong with it before: its attribute comes first
        return sorted(found, key=len, reverse=True) if found[0][0] == found[1][0] else found

    def _answer(self, one: Script, seed: int) -> Response:
        parts = tuple(self.depictions[name].depict(concept, seed=seed) for name, concept in one.parts)
        return Response(messages=(Message(role="assistant", parts=parts),))


def script(concept: Concept, modalities: Sequence[str], depictions: Mapping[str, Depiction]) -> Script:
    """The right response: each part shows all of the concept that it can carry."""
    return Script(parts=tuple((name, concept.only(depictions[name].attributes)) for name in modalities))


def ask_in(concept: Concept, modalities: Sequence[str]) -> str:
    """The request for a concept in several modalities.

    >>> ask_in(Concept(count=2, pitch="low"), ["words", "sound"])
    'Show me this in words, sound: count two, pitch low.'
    """
    opening, _, rest = ask(concept).partition(":")
    return f"{opening} in {', '.join(modalities)}:{rest}"


def asked_in(request: str) -> tuple[Concept, tuple[str, ...]] | None:
    """The concept and the modalities that a request asks for; None where it is no such request.

    >>> concept, modalities = asked_in("Show me this in words, sound: count two, pitch low.")
    >>> concept.key, modalities
    ('count=2 pitch=low', ('words', 'sound'))
    """
    found = _REQUEST.fullmatch(request)
    concept = None if found is None else asked(f"Show me this:{found[2]}")
    if found is None or concept is None:
        return None
    return concept, tuple(name.strip() for name in found[1].split(","))


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

    Of two parts of one modality the first counts.
    """
    said = [part.value for message in prompt if message.role == "user" for part in message.parts]
    request = asked_in(said[-1]) if said and isinstance(said[-1], str) else None
    if request is None or not set(request[1]) <= depictions.keys():
        return None
    concept, modalities = request
    parts = [part for part in response.segments() if not (isinstance(part.value, str) and not part.value.strip())]
    first: dict[str, Part] = {}
    for part in parts:
        first.setdefault(part.modality, part)
    shown = {name: depictions[name].read(first[name]) if name in first else None for name in modalities}
    return Seen(
        asked=script(concept, modalities, depictions), found=tuple(part.modality for part in parts), shown=shown
    )


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


def harmony(seen: Sequence[Seen]) -> Harmony:
    """Rates over many responses."""
    followed = [one.followed for one in seen]
    names = sorted({name for one in followed for name in one})
    agreed = [one.agreed for one in seen if one.agreed is not None]
    right = [one.selected and all(one.followed.values()) for one in seen]
    return Harmony(
        selection=Rate(hits=sum(one.selected for one in seen), count=len(seen)),
        agreement=Rate(hits=sum(agreed), count=len(agreed)),
        following={
            name: Rate(hits=sum(one.get(name, False) for one in followed), count=sum(name in one for one in followed))
            for name in names
        },
        whole=Rate(hits=sum(right), count=len(right)),
        reward=sum(one.reward for one in seen) / len(seen) if seen else math.nan,
    )
