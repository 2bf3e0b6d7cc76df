"""What every comparison must be, whoever made it: its responses say something, and a pair's differ."""

from __future__ import annotations

from modalign.comparison import Comparison
from modalign.data.messages import says_nothing
from modalign.errors import DataError


def validate(comparison: Comparison) -> Comparison:
    """The comparison itself, or a `DataError` that names the response."""
    for at, response in enumerate(comparison.responses):
        if not any(message.scored for message in response.messages) or says_nothing(response.messages):
            raise DataError(
                "an empty response", field=_name(comparison, at), got="nothing but white space", fix="remove the row"
            )
    for message in comparison.prompt:
        if any(part.spans for part in message.parts):
            raise DataError(
                "spans say which seconds of a response are scored, and nothing of a prompt is",
                field="prompt",
                got="a part with spans",
                fix="remove them; to mean a part of a medium, write start and end",
            )
    if comparison.kind == "pair" and comparison.chosen.messages == comparison.rejected.messages:
        raise DataError(
            "chosen and rejected are the same, so the pair says nothing",
            field="rejected",
            got="equal messages",
            fix="remove the row",
        )
    return comparison


def _name(comparison: Comparison, at: int) -> str:
    match comparison.kind:
        case "pair":
            return ("chosen", "rejected")[at]
        case "group":
            return f"responses[{at}]"
        case _:
            return "completion"
