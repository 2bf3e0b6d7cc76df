"""What row formats share: where a conversation's answer begins, and the columns that rows of many shapes may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from modalign.comparison import Comparison, Origin
from modalign.content import Message, Response
from modalign.data.fields import Fields
from modalign.data.messages import Parser, response
from modalign.errors import DataError

#: Columns of the rejected response beside `messages`, in ms-swift's rows.
REJECTED: Final = ("rejected_response", "rejected_messages")

ANSWERING: Final = ("assistant", "tool")  #: roles of the messages of a response

Turns = tuple[Message, ...]


def answer_start(turns: Turns, field: str) -> int:
    """The number of the message that begins what the assistant says after everybody else."""
    end = next((at for at in range(len(turns), 0, -1) if turns[at - 1].role not in ANSWERING), 0)
    if end in (0, len(turns)):
        raise DataError(
            "expected a conversation that ends with the assistant's answer to somebody",
            field=f"{field}[{len(turns) - 1}].role",
            got=", ".join(turn.role for turn in turns[-8:]),
            fix="remove the row, or what follows the assistant's last message",
        )
    return end


def paired(
    parser: Parser,
    fields: Fields,
    origin: Origin,
    turns: tuple[Turns, Turns, Turns],
    names: tuple[str, str] = ("chosen", "rejected"),
) -> Comparison:
    """A pair with the columns that any pair may have.

    turns: of the prompt, of chosen and of rejected.
    names: the columns that the two responses stand in.
    """
    prompt, chosen, rejected = turns
    better, worse = _judged(fields, chosen, "chosen", names[0]), _judged(fields, rejected, "rejected", names[1])
    preferences = fields.numbers("preferences")
    for name, value in preferences.items():
        if not 0 <= value <= 1:
            raise DataError("expected a probability, 0 to 1", field=f"preferences.{name}", got=str(value))
    pair = Comparison.pair(parser.attach(prompt), better, worse, margin=fields.maybe_number("margin"))
    return finished(parser, fields, origin, replace(pair, preferences=preferences))


def finished(parser: Parser, fields: Fields, origin: Origin, found: Comparison) -> Comparison:
    """A comparison with the columns that any row may have; a column that nobody read is an error."""
    weight, name, facts = fields.weight(), fields.name(), fields.facts("facts")
    parser.done()
    return replace(found, weight=weight, id=name, facts=facts, origin=origin)


def _judged(fields: Fields, messages: Turns, side: str, name: str) -> Response:
    """A response of a pair with the columns about it: those that begin or end with its side's name."""
    return response(
        messages,
        name,
        reward=fields.maybe_number(f"score_{side}", f"{side}_rating"),
        scores=fields.numbers(f"{side}_scores"),
        critique=fields.maybe_text(f"{side}_critique"),
        refinement=fields.maybe_text(f"{side}_refinement"),
        feedback=fields.feedback(f"{side}_feedback"),
        facts=fields.facts(f"{side}_facts"),
    )
