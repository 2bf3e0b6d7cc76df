"""What is asked of the messages of a comparison before they are encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from modalign.comparison import Comparison
from modalign.content import RAW, Message, Response
from modalign.errors import DataError


def named(comparison: Comparison) -> Iterator[tuple[str, Response]]:
    """The responses by the names their columns have."""
    names = ("chosen", "rejected") if comparison.kind == "pair" else ()
    for number, response in enumerate(comparison.responses):
        yield (names[number] if names else f"responses[{number}]"), response


def check_uniform(messages: Sequence[Message]) -> None:
    """Raise where a row is a conversation in one place and plain text in another."""
    roles = {message.role for message in messages}
    if RAW in roles and len(roles) > 1:
        raise DataError(
            "a row is a conversation or plain text, not both",
            field="prompt",
            got=f"roles {', '.join(sorted(roles))}",
            fix="write prompt and responses both as messages, or both as plain strings",
        )


def strings_of(message: Message) -> Iterator[str]:
    """Every string of a message that can reach the sequence."""
    waiting: list[object] = [*(part.value for part in message.parts), *message.extra.values()]
    while waiting:
        match waiting.pop():
            case str() as words:
                yield words
            case Mapping() as fields:
                waiting.extend(fields.values())
            case list() | tuple() as several:
                waiting.extend(several)
            case _:
                pass
