"""Concepts: the content of the oracle world, a handful of attributes that any modality may show."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from random import Random
from types import MappingProxyType
from typing import TypedDict, cast, final

Value = str | int | bool

#: What each attribute that a sentence can say can be, in the order in which attributes are named.
VALUES: Mapping[str, tuple[Value, ...]] = MappingProxyType(
    {
        "count": (1, 2, 3),
        "shape": ("circle", "square", "triangle"),
        "colour": ("red", "green", "blue", "yellow"),
        "side": ("left", "right"),
        "motion": ("left", "right", "up", "down"),
        "pitch": ("low", "high"),
        "time": ("early", "late"),
        "harmless": (True, False),
    }
)

#: The same of all attributes: these follow, which a medium shows and no sentence of the world says.
EVERY: Mapping[str, tuple[Value, ...]] = MappingProxyType({**VALUES, "order": ("rising", "falling")})

HELD_OUT = 0.25  #: share of all concepts that no training split contains


class _Said(TypedDict, total=False):
    count: int
    shape: str
    colour: str
    side: str
    motion: str
    pitch: str
    time: str
    harmless: bool
    order: str


@final
@dataclass(frozen=True, kw_only=True)
class Concept:
    """What a prompt asks for, or what a response shows; None is unsaid.

    count: how many things there are, or how many times something sounds.
    shape, colour: of the things; all have the same.
    side: of the middle, where they are.
    motion: where they are going.
    pitch, time: of what sounds: low or high, in the first or the second half.
    harmless: whether nobody is hurt.
    order: of the two tones of what sounds: the lower one first, or the higher one. Unsaid where it has one tone only.

    >>> Concept(count=2, colour="red").attributes
    ('count', 'colour')
    """

    count: int | None = None
    shape: str | None = None
    colour: str | None = None
    side: str | None = None
    motion: str | None = None
    pitch: str | None = None
    time: str | None = None
    harmless: bool | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        for name, values in EVERY.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                msg = f"{name} is one of {', '.join(map(str, values))}, not {value!r}"
                raise ValueError(msg)

    @property
    def said(self) -> dict[str, Value]:
        """The attributes that are set, with their values, in the order of `EVERY`."""
        return {name: value for name in EVERY if (value := getattr(self, name)) is not None}

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that are set."""
        return tuple(self.said)

    @property
    def key(self) -> str:
        """A name that equal concepts share: `count=2 colour=red`."""
        return " ".join(f"{name}={value}" for name, value in self.said.items())

    @classmethod
    def of(cls, said: Mapping[str, Value]) -> Concept:
        """The concept that says these attributes.

        >>> Concept.of({"count": 2}).count
        2
        """
        if unknown := [name for name in said if name not in EVERY]:
            msg = f"a concept has no attribute {unknown[0]!r}; it has {', '.join(EVERY)}"
            raise ValueError(msg)
        return cls(**cast(_Said, dict(said)))

    def only(self, names: Collection[str]) -> Concept:
        """This concept without the attributes that are not named."""
        return Concept.of({name: value for name, value in self.said.items() if name in names})

    def violate(self, name: str, random: Random) -> Concept:
        """The same concept with another value of one attribute that is set."""
        others = [value for value in EVERY[name] if value != self.said[name]]
        return Concept.of({**self.said, name: random.choice(others)})

    def merge(self, other: Concept) -> Concept | None:
        """What two parts say together; None where they contradict each other.

        >>> Concept(count=2).merge(Concept(pitch="low")).key
        'count=2 pitch=low'
        """
        ours, theirs = self.said, other.said
        if any(ours[name] != theirs[name] for name in ours.keys() & theirs.keys()):
            return None
        return Concept.of({**ours, **theirs})


def concepts(names: Collection[str]) -> Iterator[Concept]:
    """Every concept that says exactly these attributes, in a fixed order.

    >>> sum(1 for _ in concepts({"count", "side"}))
    6
    """
    chosen = [name for name in EVERY if name in names]
    for values in product(*(EVERY[name] for name in chosen)):
        yield Concept.of(dict(zip(chosen, values, strict=True)))


@lru_cache(maxsize=32)
def split(names: frozenset[str]) -> tuple[tuple[Concept, ...], tuple[Concept, ...]]:
    """Concepts that say exactly these attributes: those to train on, and those held out for testing.

    A fixed quarter is held out, whatever the seed: those whose keys hash lowest.

    >>> [len(part) for part in split(frozenset({"count", "side"}))]
    [4, 2]
    """
    ranked = sorted(concepts(names), key=lambda concept: hashlib.blake2b(concept.key.encode()).digest())
    test = math.ceil(HELD_OUT * len(ranked)) if len(ranked) > 1 else 0
    held_out = frozenset(ranked[:test])
    return tuple(one for one in concepts(names) if one not in held_out), tuple(ranked[:test])


def match(asked: Concept, shown: Concept | None) -> dict[str, bool]:
    """For each attribute that was asked for, whether it was shown as asked. Unreadable shows nothing.

    >>> match(Concept(count=2, side="left"), Concept(count=2, side="right"))
    {'count': True, 'side': False}
    """
    found = {} if shown is None else shown.said
    return {name: found.get(name) == value for name, value in asked.said.items()}
