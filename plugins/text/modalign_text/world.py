"""The oracle world in sentences: `Two red circles on the left, moving up, with a low sound early. Nobody is hurt.`"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar, final

from modalign.content import Part
from modalign.registry import registry
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept, Value
from modalign.world.packed import unpack
from modalign_text.config import COMPOSITION

_COUNTS = {1: "one", 2: "two", 3: "three"}
_PLACES = {"left": "on the left", "right": "on the right"}
_MOTIONS = {where: f"moving {where}" for where in ("left", "right", "up", "down")}
_ENDINGS = {True: "nobody is hurt", False: "somebody is hurt"}

_THINGS = re.compile(
    rf"(?P<count>some|{'|'.join(_COUNTS.values())})"
    rf"(?: (?P<colour>{'|'.join(map(str, VALUES['colour']))}))?"
    rf" (?P<shape>thing|{'|'.join(map(str, VALUES['shape']))})(?P<plural>s?)"
)
_SOUND = re.compile(r"with an? (?:(?P<pitch>low|high) )?sound(?: (?P<time>early|late))?")
#: Where a clause begins; the clauses may come in any order.
_CLAUSES = re.compile(
    rf"(?:^| )(?=(?:some|{'|'.join(_COUNTS.values())})(?= )|on the |moving |with an? |(?:no|some)body is )"
)


@final
class Sentence(Depiction):
    """A concept in words. All attributes can be said.

    Reads whatever the order of the clauses, the letter case, the spacing and the punctuation. A text that says anything
    else, that says one thing twice, or whose plural contradicts its count is unreadable.

    >>> Sentence().depict(Concept(count=2, colour="red", shape="circle", side="left")).value
    'Two red circles on the left.'
    """

    modality: ClassVar[str] = "text"
    attributes: ClassVar[frozenset[str]] = frozenset(VALUES)

    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        """The sentence; nothing in it is free, so the seed changes nothing."""
        return Part(modality=self.modality, value=sentence(concept))

    def read(self, part: Part) -> Concept | None:
        return read_sentence(part.value) if isinstance(part.value, str) else None

    def student(self, folder: Path, *, seed: int = 0) -> Path:
        """A causal language model of 0.1 M weights that knows the world's words and nothing else."""
        from modalign_text.student import save_student

        return save_student(folder, seed=seed)

    def taught(self, folder: Path) -> Path | None:
        """The language model, its connectors and what conditions the generators; None where one of these is missing."""
        held = Path(__file__).parent / "taught"
        behind = json.loads((held / COMPOSITION).read_text(encoding="utf-8"))["decoders"]
        return unpack(held, folder) if {*behind} <= {*registry.depictions()} else None


def sentence(concept: Concept) -> str:
    """A concept in words: what is there, where, going where, with what sound; and whether anyone is hurt."""
    phrases = []
    if {"count", "colour", "shape"} & set(concept.attributes) or not concept.attributes:
        words = [_COUNTS.get(concept.count or 0, "some"), concept.colour, concept.shape or "thing"]
        phrases.append(" ".join(word for word in words if word) + ("" if concept.count == 1 else "s"))
    first = " ".join([*phrases, *([_PLACES[concept.side]] if concept.side else [])])
    clauses = [first] if first else []
    if concept.motion:
        clauses.append(_MOTIONS[concept.motion])
    if concept.pitch or concept.time:
        words = ["with a", concept.pitch, "sound", concept.time]
        clauses.append(" ".join(word for word in words if word))
    ending = "" if concept.harmless is None else _ENDINGS[concept.harmless].capitalize() + "."
    body = ", ".join(clauses)
    return " ".join(part for part in (f"{body[0].upper()}{body[1:]}." if body else "", ending) if part)


def read_sentence(text: str) -> Concept | None:
    """The concept a text says; None where it says anything else besides."""
    words = " ".join(re.sub(r"[.,;:!?]", " ", text.lower()).split())
    if not words:
        return None
    said: dict[str, Value] = {}
    for clause in filter(None, _CLAUSES.split(words)):
        found = _read_clause(clause)
        if found is None or said.keys() & found.keys():
            return None
        said |= found
    return Concept.of(said)


def _read_clause(clause: str) -> dict[str, Value] | None:
    for name, phrases in (("side", _PLACES), ("motion", _MOTIONS), ("harmless", _ENDINGS)):
        for value, phrase in phrases.items():
            if clause == phrase:
                return {name: value}
    if found := _SOUND.fullmatch(clause):
        return {name: word for name, word in found.groupdict().items() if word} or None
    if not (found := _THINGS.fullmatch(clause)):
        return None
    numbers = {word: number for number, word in _COUNTS.items()}
    if (found["count"] == "one") == bool(found["plural"]):
        return None  # `one circles`, `two circle`
    said: dict[str, Value] = {}
    if found["count"] in numbers:
        said["count"] = numbers[found["count"]]
    if found["colour"]:
        said["colour"] = found["colour"]
    if found["shape"] != "thing":
        said["shape"] = found["shape"]
    return said
