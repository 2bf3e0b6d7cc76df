"""How the world asks: a concept as a request in words, for one modality or several, and back."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from modalign.world.concept import EVERY, Concept, Value

_OPENING = "Show me this:"
_SEVERAL = re.compile(r"\s*Show me this in ([a-z, ]+):(.*)", re.S)
_AS_SHOWN = "as shown"
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


def ask_in(concept: Concept, modalities: Sequence[str], *, shown: Collection[str] = ()) -> str:
    """The request for a concept in several modalities.

    shown: attributes that a medium before it says.

    >>> ask_in(Concept(count=2, pitch="low"), ["words", "sound"])
    'Show me this in words, sound: count two, pitch low.'
    >>> ask_in(Concept(count=2, pitch="low"), ["words", "sound"], shown=["count"])
    'Show me this in words, sound: count as shown, pitch low.'
    """
    opening, _, rest = ask(concept).partition(":")
    phrases = [
        f"{phrase.partition(' ')[0]} {_AS_SHOWN}" if name in shown else phrase
        for name, phrase in zip(concept.attributes, rest.strip(" .").split(", "), strict=True)
    ]
    return f"{opening} in {', '.join(modalities)}: {', '.join(phrases)}."


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What words ask for.

    concept: the attributes that they say.
    modalities: in their order.
    shown: names of attributes that the medium before them says.
    """

    concept: Concept
    modalities: tuple[str, ...]
    shown: tuple[str, ...] = ()


def asked_in(request: str) -> Request | None:
    """What a request for several modalities asks for; None where it is none.

    >>> found = asked_in("Show me this in words, sound: count as shown, pitch low.")
    >>> found.concept.key, found.modalities, found.shown
    ('pitch=low', ('words', 'sound'), ('count',))
    """
    found = _SEVERAL.fullmatch(request)
    if found is None:
        return None
    phrases = [one.strip() for one in found[2].strip().removesuffix(".").split(",")]
    shown = tuple(one.removesuffix(_AS_SHOWN).strip() for one in phrases if one.endswith(_AS_SHOWN))
    rest = [one for one in phrases if not one.endswith(_AS_SHOWN)]
    concept = asked(f"{_OPENING} {', '.join(rest)}.") if rest else Concept()
    if concept is None or not {*shown} <= EVERY.keys() or len({*shown, *concept.attributes}) < len(phrases):
        return None
    return Request(concept=concept, modalities=tuple(name.strip() for name in found[1].split(",")), shown=shown)
