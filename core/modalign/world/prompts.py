"""How the world asks: a concept as a request in words, and back."""

from __future__ import annotations

import re

from modalign.world.concept import VALUES, Concept, Value

_OPENING = "Show me this:"
_NUMBERS: dict[Value, str] = {1: "one", 2: "two", 3: "three"}
_TRUTH: dict[Value, str] = {True: "yes", False: "no"}


def _word(name: str, value: Value) -> str:
    match name:
        case "count":
            return _NUMBERS[value]
        case "harmless":
            return _TRUTH[value]
        case _:
            return str(value)


_WORDS: dict[tuple[str, str], Value] = {
    (name, _word(name, value)): value for name, values in VALUES.items() for value in values
}


def ask(concept: Concept) -> str:
    """The request for a concept, one phrase per attribute.

    >>> ask(Concept(count=2, colour="red"))
    'Show me this: count two, colour red.'
    """
    phrases = ", ".join(f"{name} {_word(name, value)}" for name, value in concept.said.items())
    return f"{_OPENING} {phrases}."


def asked(request: str) -> Concept | None:
    """The concept a request asks for; None where it is no request of this world.

    >>> asked("Show me this: count two, colour red.")
    Concept(count=2, shape=None, colour='red', side=None, motion=None, pitch=None, time=None, harmless=None)
    """
    found = re.fullmatch(rf"\s*{_OPENING}\s*([a-z ,]+)\.\s*", request)
    if found is None:
        return None
    values: dict[str, Value] = {}
    for phrase in found[1].split(","):
        name, _, word = phrase.strip().partition(" ")
        if (name, word) not in _WORDS or name in values:
            return None
        values[name] = _WORDS[name, word]
    return Concept.of(values)
