"""What the oracle world asks about a medium: questions in words, short answers, and preferences between them.

The truth is in the medium: whoever can read it can check an answer, and nothing else has to be known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from types import MappingProxyType
from typing import final

from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError
from modalign.roles import Depiction
from modalign.world.concept import EVERY, Concept, Value, concepts
from modalign.world.preferences import MISTAKES, Kind, comparison, ordered, said
from modalign.world.prompts import WORDS, word

ABOUT = "about"  #: what rows of questions are called by: `about/MODALITY/KIND`

#: How each attribute is asked for.
PHRASES = MappingProxyType(
    {
        "count": "how many are there",
        "shape": "which shape",
        "colour": "which colour",
        "side": "on which side",
        "motion": "moving which way",
        "pitch": "low or high",
        "time": "early or late",
        "harmless": "is it harmless",
        "order": "rising or falling",
    }
)
_NAMES = {phrase: name for name, phrase in PHRASES.items()}


def question(names: Sequence[str]) -> str:
    """The question for attributes, in the order given.

    >>> question(["count", "colour"])
    'How many are there and which colour?'
    """
    text = " and ".join(PHRASES[name] for name in names)
    return f"{text[0].upper()}{text[1:]}?"


def questioned(text: str) -> tuple[str, ...] | None:
    """The attributes a question asks for, in its order; None where it is no question of this world.

    >>> questioned("Which colour and how many are there?")
    ('colour', 'count')
    """
    found = re.fullmatch(r"\s*([a-z ]+)\?\s*", text.lower())
    phrases = [] if found is None else found[1].strip().split(" and ")
    names = tuple(_NAMES[phrase] for phrase in phrases if phrase in _NAMES)
    return names if names and len(names) == len(phrases) == len(set(names)) else None


def answer(concept: Concept, names: Sequence[str]) -> str:
    """What a concept says of attributes, a word for each, in the order given.

    >>> answer(Concept(count=2, colour="red"), ["colour", "count"])
    'red, two'
    """
    return ", ".join(word(name, concept.said[name]) for name in names)


def read_answer(text: str, names: Sequence[str]) -> Concept | None:
    """The concept an answer says; None where it is not exactly one known word for each attribute, in their order.

    Letter case, spacing and punctuation do not matter.

    >>> read_answer(" Red, two.", ["colour", "count"]).key
    'count=2 colour=red'
    >>> read_answer("two, red", ["colour", "count"]) is None
    True
    """
    words = re.sub(r"[.,;:!?]", " ", text.lower()).split()
    if len(words) != len(names):
        return None
    values: dict[str, Value] = {}
    for name, one in zip(names, words, strict=True):
        if (name, one) not in WORDS:
            return None
        values[name] = WORDS[name, one]
    return Concept.of(values)


def chance(names: Collection[str]) -> float:
    """How often one who knows the question and not the medium is right in every attribute, by guessing evenly.

    >>> chance(["count", "side"])  # 1/3 * 1/2
    0.16666666666666666
    """
    return math.prod(1 / len(EVERY[name]) for name in names)


@lru_cache(maxsize=32)
def even_split(names: frozenset[str]) -> tuple[tuple[Concept, ...], tuple[Concept, ...]]:
    """Concepts whose media are asked about in training, and those held out for testing: a quarter, spread evenly.

    Held out is where the numbers of the values add up to a multiple of four, so that no value goes with another much
    less often than with the rest. Drawn by lot, as `split` does for requests, red could be left with half of the
    motions, and a model that learns its answers well would be right to doubt that red things go any other way.

    >>> [one.key for one in even_split(frozenset({"colour", "motion"}))[1]][:2]
    ['colour=red motion=left', 'colour=green motion=down']
    """
    numbers = {one: sum(EVERY[name].index(value) for name, value in one.said.items()) for one in concepts(names)}
    return tuple(one for one in numbers if numbers[one] % 4), tuple(one for one in numbers if not numbers[one] % 4)


@final
@dataclass(frozen=True, kw_only=True)
class Questions:
    """Media of one modality, and questions about them.

    depiction: renders the media.
    words: name of the modality that questions and answers are made of.
    attributes: what is asked for; by default all that the depiction carries.
    least, most: attributes that one question asks for; a pair with a shared defect needs two.
    seed: of everything drawn. Which concepts are held out does not depend on it.
    mistakes: share of the SFT examples whose answer is wrong in exactly one attribute.
    """

    depiction: Depiction
    words: str
    attributes: frozenset[str] | None = None
    least: int = 1
    most: int = 3
    seed: int = 0
    mistakes: float = MISTAKES

    def __post_init__(self) -> None:
        if unknown := ordered(self.names - self.depiction.attributes):
            raise ConfigError(
                f"{self.depiction.modality!r} cannot show {', '.join(unknown)}",
                where="attributes",
                got=f"it shows {', '.join(ordered(self.depiction.attributes))}",
                fix="ask for those, or about another modality",
            )
        if not 1 <= self.least <= min(self.most, len(self.names)):
            raise ConfigError(
                f"a question asks for 1 to {len(self.names)} attributes",
                where="least, most",
                got=f"{self.least} to {self.most} of {', '.join(ordered(self.names)) or 'none'}",
                fix="ask for fewer, or for more attributes",
            )

    @property
    def names(self) -> frozenset[str]:
        """The attributes that are asked for."""
        return self.depiction.attributes if self.attributes is None else self.attributes

    def rows(self, kind: Kind, size: int, *, held_out: bool = False) -> list[Comparison]:
        """Comparisons of one kind; each has its own medium, and a question about it.

        kind: `sft`, one answer, some with one mistake; `clean`, the chosen is right and the rejected wrong in one
            attribute; `shared-defect`, the chosen is wrong in one attribute, the rejected in the same one in the same
            way and in one more; `prompts`, no answer.
        held_out: about media of the concepts that are kept for testing, instead of the others.
        """
        if kind == "shared-defect" and min(self.most, len(self.names)) < 2:
            raise ConfigError(
                "a pair shares a defect and differs in another: its question asks for two attributes or more",
                where="attributes, most",
                got=f"at most {self.most} of {', '.join(ordered(self.names))}",
                fix="allow two attributes, or take the kind clean",
            )
        return [self._row(kind, number, held_out) for number in range(size)]

    def _row(self, kind: Kind, number: int, held_out: bool) -> Comparison:
        random = Random(f"{ABOUT}/{self.seed}/{kind}/{held_out}/{number}")
        concept = random.choice(even_split(self.depiction.attributes)[held_out])
        least = max(self.least, 2) if kind == "shared-defect" else self.least
        names = ordered(random.sample(ordered(self.names), random.randint(least, min(self.most, len(self.names)))))
        medium = self.depiction.depict(concept, seed=random.getrandbits(31))
        prompt = Message(role="user", parts=(medium, Part(modality=self.words, value=question(names))))
        answers = said(kind, concept.only(names), random, mistakes=self.mistakes)
        source = f"oracle/{ABOUT}/{self.depiction.modality}/{kind}{'-test' if held_out else ''}"
        return comparison(source, number, self.seed, prompt, [self._response(one, names) for one in answers])

    def _response(self, concept: Concept, names: Sequence[str]) -> Response:
        part = Part(modality=self.words, value=answer(concept, names))
        return Response(messages=(Message(role="assistant", parts=(part,)),))
