"""Columns of media: which content block takes which of their items, counted so that none is lost or taken twice.

A column that a modality claims fills blocks of the modality's type. Beside a claimed column C the column `rejected_C`
is claimed too: its items are the rejected response's alone, and C's are those of the prompt and the chosen response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from modalign.data.fields import Fields
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError

REJECTED: Final = "rejected_"  #: what the name of a column of the rejected response's own media begins with

_CONTENT: Final = ("path", "bytes")  # fields of a block that say its content beside the one named as its type


def vacant(block: Mapping[str, object], kind: str) -> bool:
    """Whether a block says its type, and perhaps facts about a medium, but no content."""
    return not any(block.get(name) is not None for name in (kind, *_CONTENT))


def places(messages: object, kind: str) -> int:
    """How many blocks of a type in raw messages say no content: the places that items of a column take."""
    return sum(found == kind and vacant(block, kind) for found, block in _blocks(messages))


@final
@dataclass
class _Queue:
    """The items of one type for one side, and what became of them."""

    columns: list[str]
    items: list[tuple[str, object]] = field(default_factory=list)
    blocks: int = 0
    taken: int = 0


@final
class MediaColumns:
    """The items of a row's columns of media, each with the field it stands in.

    fields: the row's columns; those of media count as read.
    vocabulary: which modality claims which.
    """

    def __init__(self, fields: Fields, vocabulary: Vocabulary) -> None:
        self._queues: dict[tuple[str, bool], _Queue] = {}
        for column in vocabulary.columns:
            self._add(fields, vocabulary, column, column, rejected=False)
            if f"{REJECTED}{column}" not in vocabulary.columns:
                self._add(fields, vocabulary, column, f"{REJECTED}{column}", rejected=True)

    def _add(self, fields: Fields, vocabulary: Vocabulary, claimed: str, column: str, *, rejected: bool) -> None:
        if not fields.has(column):
            return
        value = fields.take(column)
        every = value if isinstance(value, list | tuple) else [value]
        for at, item in enumerate(every):
            if item is None:
                raise DataError("a medium that is null", field=f"{column}[{at}]", got="null", fix="remove the row")
        queue = self._queues.setdefault((vocabulary.of_column(claimed), rejected), _Queue(columns=[]))
        queue.columns.append(column)
        queue.items.extend((f"{column}[{at}]", item) for at, item in enumerate(every))

    def expect(self, messages: object, *, rejected: bool) -> None:
        """Count the vacant blocks of a conversation before any is filled, so that an error can say how many."""
        for kind, block in _blocks(messages):
            if (queue := self._queue(kind, rejected=rejected)) is not None and vacant(block, kind):
                queue.blocks += 1

    def take(
        self, block: Mapping[str, object], kind: str, where: str, *, rejected: bool
    ) -> tuple[str, Mapping[str, object]]:
        """A block with its content, and the field that content stands in; one that needs no item is given back.

        where: the block's own field.
        """
        queue = self._queue(kind, rejected=rejected)
        if queue is None or not vacant(block, kind):
            return where, block
        if queue.taken == len(queue.items):
            raise DataError(
                "more blocks than the column has items",
                field=where,
                got=_numbers(max(queue.blocks, queue.taken + 1), kind, queue),
                fix="make the numbers equal",
            )
        found, item = queue.items[queue.taken]
        queue.taken += 1
        return found, {**block, kind: item}

    def left(self) -> Iterator[tuple[str, str, object]]:
        """Type, field and item of everything that no block took, where there was no block to take it."""
        for (kind, rejected), queue in self._queues.items():
            spare = queue.items[queue.taken :]
            if spare and (queue.taken or rejected):
                where = " in the rejected response" if rejected else ""
                raise DataError(
                    f"fewer blocks{where} than the column has items",
                    field=spare[0][0],
                    got=_numbers(queue.taken, kind, queue),
                    fix=f'write {{"type": "{kind}"}} into `rejected` for each: both responses have the same prompt'
                    if rejected
                    else "make the numbers equal",
                )
            queue.taken = len(queue.items)
            for found, item in spare:
                yield kind, found, item

    def _queue(self, kind: str, *, rejected: bool) -> _Queue | None:
        own = self._queues.get((kind, True)) if rejected else None
        return own or self._queues.get((kind, False))


def _numbers(blocks: int, kind: str, queue: _Queue) -> str:
    return f"{blocks} blocks of type {kind!r}, {len(queue.items)} items in {' and '.join(queue.columns)}"


def _blocks(messages: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every block with a type in raw messages; what is no message or no block is left to the reading to refuse."""
    for message in messages if isinstance(messages, list | tuple) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for block in content if isinstance(content, list | tuple) else ():
            if isinstance(block, Mapping) and isinstance(kind := block.get("type"), str):
                yield kind, block
