"""How the world asks: a concept as a request in words, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from modalign.world.concept import EVERY, Concept, Value

_OPENING = "Show me this:"
_NUMBERS: dict[Value, str] = {1: "one", 2: "two", 3: "three"}
_TRUTH: dict[Value, str] = {True: "yes", False: "no"}


def word(name: str, value: Value) -> str:
    """The word for a value, in requests and in answers.

    >>> word("count", 2), word("harmless", True)
    ('two', 'yes')
    """
    match name:
        case "count":
            return _NUMBERS[value]
        case "harmless":
            return _TRUTH[value]
        case _:
            return str(value)


#: What each word says of each attribute.
WORDS: Mapping[tuple[str, str], Value] = MappingProxyType(
    {(name, word(name, value)): value for name, values in EVERY.items() for value in values}
)


def ask(concept: Concept) -> str:
    """The request for a concept, one phrase per attribute.

    >>> ask(Concept(count=2, colour="red"))
    'Show me this: count two, colour red.'
    """
    phrases = ", ".join(f"{name} {word(name, value)}" for name, value in concept.said.items())
    return f"{_OPENING} {phrases}."


def asked(request: str) -> Concept | None:
    """The concept a request asks for; None where it is no request of this world.

    >>> asked("Show me this: count two, colour red.").key
    'count=2 colour=red'
    """
    found = re.fullmatch(rf"\s*{_OPENING}\s*([a-z ,]+)\.\s*", request)
    if found is None:
        return None
    values: dict[str, Value] = {}
    for phrase in found[1].split(","):
        name, _, said = phrase.strip().partition(" ")
        if (name, said) not in WORDS or name in values:
            return None
        values[name] = WORDS[name, said]
    return Concept.of(values)
