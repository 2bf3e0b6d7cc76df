"""The oracle world in several modalities at once: requests for words and media in one response, and responses.

A request names modalities in an order, and attributes. Some of these it may leave to a medium that stands before it:
`colour as shown`. A right response has these parts and no others; each shows all that it can carry of what was asked;
and where two carry the same attribute, they agree. Any of this may be wrong in a response, and so be what a preference
is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Final, final

from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept, split
from modalign.world.preferences import MISTAKES, Kind, comparison, ordered
from modalign.world.prompts import ask_in

TOGETHER: Final = "together"  #: what rows of several modalities are called by: `together/KIND`
STRAYS: Final = 0.25  #: share of SFT examples with a part of another modality, or one too many

_SELECTION: Final = 0.25  #: share of defects that are which parts there are
_EXTRA: Final = 0.5  #: share of those that are a part too many: without them DPO unlearns to end
_UNSAID: Final = 1 / 3  #: share of wrong attributes of words that are left out: without them DPO unlearns to say all
_SHOWN: Final = 0.5  #: share of requests that leave attributes to a medium before them
_MOST_SHOWN: Final = 2  #: attributes that are left to it


@final
@dataclass(frozen=True, kw_only=True)
class Script:
    """What the parts of a response are to be, in their order.

    parts: the modality of each, and what it shows.
    words: the modality that can leave an attribute out; of the others each shows some value, whatever was asked for.
    """

    parts: tuple[tuple[str, Concept], ...]
    words: str | None = None

    def defects(self, known: Sequence[str]) -> list[tuple[str, ...]]:
        """What can be wrong with it: an attribute of a part, `("1", "colour")`, of another value or left out, or which
        parts there are, `("1",)`: that one is of another modality, or, behind the last, that it is there at all.

        known: modalities there are.
        """
        shown = [(str(at), name) for at, (_, concept) in enumerate(self.parts) for name in concept.attributes]
        return [*shown, *((str(at),) for at in range(len(self.parts) + 1) if len(known) > len(self.parts))]

    def broken(
        self, defect: tuple[str, ...], known: Mapping[str, Depiction], concept: Concept, random: Random
    ) -> Script:
        """The same with one defect.

        concept: what was asked for, of which a part of another modality shows what it can.
        """
        parts, at = list(self.parts), int(defect[0])
        if len(defect) > 1:
            (name, shown), wrong = parts[at], defect[1]
            rest = [one for one in shown.attributes if one != wrong]
            unsaid = name == self.words and rest and random.random() < _UNSAID
            parts[at] = name, shown.only(rest) if unsaid else shown.violate(wrong, random)
            return replace(self, parts=tuple(parts))
        others = sorted(known.keys() - {name for name, _ in parts})
        other = random.choice(others)
        parts[at : at + 1] = [(other, concept.only(known[other].attributes))]
        return replace(self, parts=tuple(parts))


@final
@dataclass(frozen=True, kw_only=True)
class Together:
    """The world as several modalities show it.

    depictions: by modality.
    words: name of the modality prompts are made of.
    seed: of everything drawn. Which concepts are held out does not depend on it.
    mistakes: share of the SFT examples with a wrong attribute in one part.
    strays: share of those with a part of another modality, or one too many, where there is another.
    """

    depictions: Mapping[str, Depiction]
    words: str
    seed: int = 0
    mistakes: float = MISTAKES
    strays: float = STRAYS

    def rows(self, kind: Kind, size: int, *, held_out: bool = False) -> list[Comparison]:
        """Comparisons of one kind, as `World.rows` has them: a defect is what a violated attribute is there."""
        return [self._row(kind, number, held_out) for number in range(size)]

    def _row(self, kind: Kind, number: int, held_out: bool) -> Comparison:
        random = Random(f"{self.seed}/{TOGETHER}/{kind}/{held_out}/{number}")
        modalities = self._chosen(random)
        concept = random.choice(split(self.names(modalities))[held_out])
        right = replace(script(concept, modalities, self.depictions), words=self.words)
        seed = random.getrandbits(31)  # shared by all responses, so that they differ in what was asked for only
        shown = [self._answer(one, seed) for one in self._scripts(kind, right, concept, random)]
        source = f"oracle/{TOGETHER}/{kind}{'-test' if held_out else ''}"
        return comparison(source, number, self.seed, self._request(concept, modalities, random), shown)

    def _request(self, concept: Concept, modalities: Sequence[str], random: Random) -> Message:
        """What the user says; in some of them a medium says a part of it."""
        before: tuple[Part, ...] = ()
        names: list[str] = []
        able = sorted(
            name
            for name, one in self.depictions.items()
            if name != self.words and one.attributes & {*concept.attributes}
        )
        if able and random.random() < _SHOWN:
            depiction = self.depictions[random.choice(able)]
            carried = ordered(depiction.attributes & {*concept.attributes})
            names = ordered(random.sample(carried, random.randint(1, min(_MOST_SHOWN, len(carried)))))
            # the rest of it is free: what the words say counts
            before = (depiction.depict(concept.only(names), seed=random.getrandbits(31)),)
        said = Part(modality=self.words, value=ask_in(concept, modalities, shown=names))
        return Message(role="user", parts=(*before, said))

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
                return [self._example(right, concept, random)]
            case "clean":
                return [right, right.broken(defects[0], self.depictions, concept, random)]
            case "shared-defect":
                chosen = right.broken(defects[0], self.depictions, concept, random)
                return [chosen, chosen.broken(defects[1], self.depictions, concept, random)]

    def _example(self, right: Script, concept: Concept, random: Random) -> Script:
        """What an SFT example shows: both kinds of mistakes by chance, each at most once."""
        every, found = right.defects(sorted(self.depictions)), right
        for share, size in ((self.mistakes, 2), (self.strays, 1)):
            able = [one for one in every if len(one) == size]
            if able and random.random() < share:
                defect = random.choice(able) if size > 1 else _part(able, random)
                found = found.broken(defect, self.depictions, concept, random)
        return found

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
            second = _part(apart, random)
        found = [first, second]
        random.shuffle(found)
        # a part of another modality does not show what was wrong with it before: its attribute comes first
        return sorted(found, key=len, reverse=True) if found[0][0] == found[1][0] else found

    def _answer(self, one: Script, seed: int) -> Response:
        parts = tuple(self.depictions[name].depict(concept, seed=seed) for name, concept in one.parts)
        return Response(messages=(Message(role="assistant", parts=parts),))


def _part(defects: Sequence[tuple[str, ...]], random: Random) -> tuple[str, ...]:
    """A defect of which parts there are; half of the time, where there is one part too many."""
    return defects[-1] if random.random() < _EXTRA else random.choice(defects[:-1] or defects)


def script(concept: Concept, modalities: Sequence[str], depictions: Mapping[str, Depiction]) -> Script:
    """The right response: each part shows all of the concept that it can carry."""
    return Script(parts=tuple((name, concept.only(depictions[name].attributes)) for name in modalities))
