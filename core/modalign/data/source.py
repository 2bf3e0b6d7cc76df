"""Where rows come from: a source knows how many it has, gives any of them, and says where each one lies."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from itertools import accumulate
from typing import Protocol, final

from modalign.comparison import Comparison
from modalign.content import Message, Response, digest
from modalign.data.fields import mapping
from modalign.errors import DataError

Row = Mapping[str, object] | Comparison


class Source(ABC):
    """Rows, by number from 0.

    name: what messages call it.
    notes: what was found and put up with while it was opened.
    """

    name: str
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, number: int) -> Row:
        """A row, or a `DataError` without its place."""

    def place(self, number: int) -> tuple[str, int]:
        """The file as messages call it, and the row or line, counted from 1."""
        return self.name, number + 1

    def stable(self, number: int) -> tuple[str, int]:
        """The place under a name that does not depend on the folder it lies in: draws are seeded by it."""
        return self.place(number)

    def __iter__(self) -> Iterator[Row | DataError]:
        """All rows in order, and the error of each that cannot be read."""
        for number in range(len(self)):
            try:
                yield self.row(number)
            except DataError as error:
                yield error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, as hex."""
        return self._digest()

    @abstractmethod
    def _digest(self) -> str: ...


@final
class Rows(Source):
    """Rows in memory.

    rows: mappings of columns, or comparisons.
    name: what messages call them.
    """

    def __init__(self, rows: Sequence[object], name: str = "rows", *, stem: str | None = None) -> None:
        self.name, self._rows, self._stem = name, rows, stem or name

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, number: int) -> Row:
        value = self._rows[number]
        return value if isinstance(value, Comparison) else mapping(value, "(whole row)")

    def stable(self, number: int) -> tuple[str, int]:
        return self._stem, number + 1

    def _digest(self) -> str:
        return digest_of_rows(self._rows)


class Table(Protocol):
    """What is used of a `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        """Its columns."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: int, /) -> Mapping[str, object]: ...


@final
class TableRows(Source):
    """The rows of a `datasets.Dataset`, as they are stored: media are not decoded.

    table: the data set.
    name: what messages call it.
    """

    def __init__(self, table: Table, name: str) -> None:
        self.name, self._table = name, table

    def __len__(self) -> int:
        return len(self._table)

    def row(self, number: int) -> Row:
        found = self._table[number]
        # a table of arrow, where the library would decode what the row holds
        plain = getattr(found, "to_pylist", None)
        return found if plain is None else plain()[0]

    def _digest(self) -> str:
        return digest_of_rows(self.row(number) for number in range(len(self)))


@final
class Chain(Source):
    """Several sources, one after the other.

    sources: at least one.
    name: what messages call the whole.
    """

    def __init__(self, sources: Sequence[Source], name: str) -> None:
        self.name, self._sources = name, sources
        self._ends = list(accumulate(len(source) for source in sources))
        self.notes = tuple(note for source in sources for note in source.notes)

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, number: int) -> Row:
        source, inner = self._find(number)
        return source.row(inner)

    def place(self, number: int) -> tuple[str, int]:
        source, inner = self._find(number)
        return source.place(inner)

    def stable(self, number: int) -> tuple[str, int]:
        source, inner = self._find(number)
        return source.stable(inner)

    def __iter__(self) -> Iterator[Row | DataError]:
        for source in self._sources:
            yield from source

    def _digest(self) -> str:
        return hashlib.sha256("\n".join(source.digest for source in self._sources).encode()).hexdigest()

    def _find(self, number: int) -> tuple[Source, int]:
        at = bisect_right(self._ends, number)
        return self._sources[at], number - (self._ends[at - 1] if at else 0)


def digest_of_rows(rows: Iterator[object] | Sequence[object]) -> str:
    """SHA-256 of rows in memory, as hex: equal values give equal digests, whatever order an object's keys have."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, default=_plain).encode() + b"\n")
    return sha.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Comparison):
        responses = [_said(one) for one in value.responses]
        more = _present(preferences=dict(value.preferences), facts=dict(value.facts))
        return [value.kind, value.id, value.margin, value.weight, _turns(value.prompt), responses, *more]
    try:
        return digest(value)
    except TypeError:
        # arrays and decoded media give their bytes; a repr may hold an address, which differs from run to run
        content = getattr(value, "tobytes", None)
        return digest(content()) if callable(content) else f"{type(value).__module__}.{type(value).__qualname__}"


def _said(response: Response) -> list[object]:
    """A response with what was said of it."""
    feedback = {name: astuple(one) for name, one in response.feedback.items()}
    words = _present(critique=response.critique, refinement=response.refinement)
    more = _present(feedback=feedback, facts=dict(response.facts))
    return [_turns(response.messages), response.label, response.reward, dict(response.scores), *words, *more]


def _present(**said: object) -> list[object]:
    """What is said, by name: data that say none of it keep the digest they had before there was a place for it."""
    return [{name: value} for name, value in said.items() if value]


def _turns(messages: Sequence[object]) -> list[object]:
    return [
        [one.role, [[part.modality, part.digest] for part in one.parts], dict(one.extra)]
        for one in messages
        if isinstance(one, Message)
    ]
