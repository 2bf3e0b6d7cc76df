"""What the oracle world prefers: prompts, examples with mistakes, clean pairs and pairs that share a defect.

Of two responses to a prompt, the better one is the one that shows more of what was asked. Everything is drawn from a
key (seed, kind, number), so row n is the same however many rows are made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, final

from modalign.comparison import Comparison, Origin
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError
from modalign.roles import Depiction
from modalign.world.concept import EVERY, Concept, split
from modalign.world.prompts import ask

Kind = Literal["sft", "clean", "shared-defect", "prompts"]

MISTAKES = 0.45  #: share of the SFT examples whose response violates exactly one attribute


@final
@dataclass(frozen=True, kw_only=True)
class World:
    """The world as one modality shows it.

    depiction: renders the responses.
    words: name of the modality prompts are made of.
    attributes: what prompts ask for; by default all that the depiction carries.
    seed: of everything drawn. Which concepts are held out does not depend on it.
    mistakes: share of the SFT examples whose response violates exactly one attribute.
    """

    depiction: Depiction
    words: str
    attributes: frozenset[str] | None = None
    seed: int = 0
    mistakes: float = MISTAKES

    def __post_init__(self) -> None:
        if unknown := sorted(self.names - self.depiction.attributes):
            raise ConfigError(
                f"{self.depiction.modality!r} cannot show {', '.join(unknown)}",
                where="attributes",
                got=f"it shows {', '.join(ordered(self.depiction.attributes))}",
                fix="ask for those, or for another modality",
            )

    @property
    def names(self) -> frozenset[str]:
        """The attributes that prompts ask for."""
        return self.depiction.attributes if self.attributes is None else self.attributes

    def rows(self, kind: Kind, size: int, *, held_out: bool = False) -> list[Comparison]:
        """Comparisons of one kind.

        kind: `sft`, one response, some with one mistake; `clean`, the chosen is as asked and the rejected violates one
            attribute; `shared-defect`, the chosen violates one attribute, the rejected the same one in the same way
            and one more; `prompts`, no response.
        held_out: about the concepts that are kept for testing, instead of the others.
        """
        return [self._row(kind, number, held_out) for number in range(size)]

    def _row(self, kind: Kind, number: int, held_out: bool) -> Comparison:
        random = Random(f"{self.seed}/{kind}/{held_out}/{number}")
        concept = random.choice(split(self.names)[held_out])
        seed = random.getrandbits(31)  # shared by all responses, so that they differ in what was asked for only
        shown = [self._answer(one, seed) for one in said(kind, concept, random, mistakes=self.mistakes)]
        source = f"oracle/{self.depiction.modality}/{kind}{'-test' if held_out else ''}"
        return comparison(source, number, self.seed, request(concept, self.words), shown)

    def _answer(self, concept: Concept, seed: int) -> Response:
        return Response(messages=(Message(role="assistant", parts=(self.depiction.depict(concept, seed=seed),)),))


def said(kind: Kind, concept: Concept, random: Random, *, mistakes: float = MISTAKES) -> tuple[Concept, ...]:
    """What the responses of a row say where ``concept`` is right: none, one, or the better and the worse one.

    mistakes: share of the SFT examples that violate exactly one attribute.
    """
    match kind:
        case "prompts":
            return ()
        case "sft":
            wrong = random.random() < mistakes
            return (concept.violate(random.choice(concept.attributes), random) if wrong else concept,)
        case "clean":
            return concept, concept.violate(random.choice(concept.attributes), random)
        case "shared-defect":
            first, second = random.sample(concept.attributes, 2)
            chosen = concept.violate(first, random)
            return chosen, chosen.violate(second, random)


def comparison(source: str, number: int, seed: int, prompt: Message, responses: Sequence[Response]) -> Comparison:
    """A row of the world.

    source: what kind of rows it is one of.
    seed: of those rows.
    """
    return Comparison(
        prompt=(prompt,),
        responses=tuple(responses),
        kind="pair" if len(responses) == 2 else "unpaired" if responses else "prompt",
        id=f"{source}/{seed}/{number}",
        origin=Origin(file=source, row=number + 1),
    )


def request(concept: Concept, words: str) -> Message:
    """The user's message that asks for a concept, in parts of modality ``words``."""
    return Message(role="user", parts=(Part(modality=words, value=ask(concept)),))


def ordered(names: Collection[str]) -> list[str]:
    """Attributes in the order in which they are named."""
    return [name for name in EVERY if name in names]
