"""Messages as a row's column: the inverse of reading them."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.content import RAW, Message
from modalign.registry import registry


def column(messages: Sequence[Message]) -> str | list[dict[str, object]]:
    """A string for a continuation outside any template, else a list of messages with role and content.

    >>> from modalign.content import Part
    >>> column([Message(role="user", parts=(Part(modality="words", value="Hello"),))])
    [{'role': 'user', 'content': 'Hello'}]
    """
    if len(messages) == 1 and messages[0].role == RAW and isinstance(words := _content(messages[0]), str):
        return words
    return [{"role": message.role, "content": _content(message), **message.extra} for message in messages]


def _content(message: Message) -> str | list[dict[str, object]]:
    if len(message.parts) == 1 and isinstance(words := message.parts[0].value, str):
        return words
    return [dict(registry.modality(part.modality).block(part)) for part in message.parts]
