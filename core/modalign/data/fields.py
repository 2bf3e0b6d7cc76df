"""Strict access to the columns of a row: a wrong type is an error, and so is a column that nobody reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from modalign.content import Fact, Feedback
from modalign.errors import DataError
from modalign.shown import shown
from modalign.timeline import Spans

_METADATA = """
index idx uuid row_id prompt_id conversation_id example_id sample_id question_id source_id pair_id source
dataset dataset_name subset split config domain category subcategory topic task language lang model model_name
models chosen_model rejected_model chosen_model_name rejected_model_name completion_model annotator annotator_id
annotators created_at timestamp date version license meta metadata tags
"""

_FEEDBACK = tuple(one.name for one in dataclasses.fields(Feedback))

#: Columns that say where a row comes from and nothing a model could learn from: read by nobody, and no error.
METADATA = frozenset(_METADATA.split())


def expected(what: str, value: object, field: str, *, fix: str | None = None) -> DataError:
    """The error of a field that holds something else."""
    return DataError(f"expected {what}", field=field, got=shown(value), fix=fix)


def string(value: object, field: str) -> str:
    """A value that must be a string that UTF-8 can say."""
    if not isinstance(value, str):
        raise expected("a string", value, field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                "a string with half of a surrogate pair, which is no character",
                field=field,
                got=f"character {error.start}: {shown(value[error.start : error.start + 8])}",
                fix="write the whole pair, or remove it",
            ) from None
    return value


def number(value: object, field: str) -> float:
    """A value that must be a finite number; a boolean or a string is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise expected("a number", value, field)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise DataError("expected a finite number", field=field, got=str(found), fix="remove the row, or the value")
    return found


def sequence(value: object, field: str) -> Sequence[object]:
    """A value that must be a list."""
    if not isinstance(value, list | tuple):
        raise expected("a list", value, field)
    return value


def mapping(value: object, field: str) -> Mapping[str, object]:
    """A value that must be an object, its keys strings."""
    if not isinstance(value, Mapping):
        raise expected("an object", value, field)
    for key in value:
        string(key, field)
    return value


def block_value(block: Mapping[str, object], name: str, what: str) -> object:
    """What a content block holds in the one field beside its type; any further field is an error.

    what: a block of this type is of, in words.
    """
    unknown = next((key for key, value in block.items() if key not in ("type", name) and value is not None), None)
    if unknown is not None:
        raise DataError(
            f"a block of {what} with a field that nothing reads",
            field=str(unknown),
            got=shown(block[unknown]),
            fix=f"remove it; what is read is the field `{name}`",
        )
    return block.get(name)


def take_over(block: dict[str, object], item: Mapping[object, object], name: str) -> None:
    """Let a fact that a block's item says of itself be the block's own; two that differ are an error."""
    if (said := item.get(name)) is None:
        return
    if block.get(name) is not None and block[name] != said:
        raise DataError(
            "a block and its item say different things",
            field=name,
            got=f"{shown(block[name])} and {shown(said)}",
            fix="keep the one that is right",
        )
    block[name] = said


def spans(value: object, field: str) -> Spans:
    """Spans of time, ``[[start, end], ...]`` in seconds: at least one, each with an end after its start."""
    found: list[tuple[float, float]] = []
    for at, one in enumerate(sequence(value, field)):
        pair = sequence(one, f"{field}[{at}]")
        if len(pair) != 2:
            raise expected("start and end in seconds", one, f"{field}[{at}]")
        start, end = (number(seconds, f"{field}[{at}]") for seconds in pair)
        if not 0 <= start < end:
            raise DataError(
                "a span of time begins at 0 seconds or later, and ends after that",
                field=f"{field}[{at}]",
                got=f"{start:g} to {end:g}",
                fix="correct the row",
            )
        found.append((start, end))
    if not found:
        raise DataError("no span is scored", field=field, got="an empty list", fix="leave it out where all is scored")
    return tuple(found)


def _fact(value: object, field: str) -> Fact:
    if isinstance(value, bool):
        return value
    return string(value, field) if isinstance(value, str) else number(value, field)


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple) and not value)  # an array compares element by element


@final
class Fields:
    """The columns of one row. A column that is null counts as absent.

    row: by column.

    >>> fields = Fields({"prompt": "2+2?", "source": "a book", "clip": "a.bin"})
    >>> fields.text("prompt")
    '2+2?'
    >>> fields.done()
    Traceback (most recent call last):
    ...
    modalign.errors.DataError: field=clip: no format or plugin claims this column; ...
    """

    def __init__(self, row: Mapping[str, object]) -> None:
        self._row = row
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the row says anything there."""
        return self._row.get(name) is not None

    def take(self, name: str) -> object:
        """What the column holds; it must hold something."""
        self._read.add(name)
        if (value := self._row.get(name)) is None:
            found = f"columns {', '.join(self._row) or '(none)'}" if name not in self._row else "null"
            raise DataError("a column is missing", field=name, got=found, fix="add it, or remove the row")
        return value

    def text(self, name: str) -> str:
        """A column that must be a string."""
        return string(self.take(name), name)

    def flag(self, name: str) -> bool:
        """A column that must be true or false; 0 and 1 are not."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise expected("true or false", value, name, fix="write a boolean, not a number or a word")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A column that may be a string."""
        return self.text(name) if self.has(name) else None

    def maybe_number(self, *names: str) -> float | None:
        """The number one of these columns holds; None where the row has none of them."""
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            raise DataError(f"two columns say the same thing: {' and '.join(present)}", field=present[1])
        return number(self.take(present[0]), present[0]) if present else None

    def numbers(self, name: str) -> dict[str, float]:
        """Numbers by name; none where the column is absent. A name without a number is left out."""
        if not self.has(name):
            return {}
        found = mapping(self.take(name), name)
        return {key: number(value, f"{name}.{key}") for key, value in found.items() if value is not None}

    def facts(self, name: str) -> dict[str, Fact]:
        """Strings, numbers and booleans by name; none where the column is absent. A null one is left out."""
        found = mapping(self.take(name), name) if self.has(name) else {}
        return {key: _fact(value, f"{name}.{key}") for key, value in found.items() if value is not None}

    def feedback(self, name: str) -> dict[str, Feedback]:
        """What was said in words, by dimension; none where the column is absent. What says nothing is left out."""
        found = mapping(self.take(name), name) if self.has(name) else {}
        said: dict[str, Feedback] = {}
        for key, value in found.items():
            words: dict[str, str] = {}
            for kind, one in mapping({} if value is None else value, f"{name}.{key}").items():
                if kind not in _FEEDBACK:
                    fix = f"use one of {', '.join(_FEEDBACK)}"
                    raise DataError(
                        "feedback of an unknown kind", field=f"{name}.{key}.{kind}", got=shown(one), fix=fix
                    )
                if one is not None:
                    words[kind] = string(one, f"{name}.{key}.{kind}")
            if words:
                said[key] = Feedback(**words)
        return said

    def name(self) -> str | None:
        """The `id` column: a string, or a whole number."""
        if not self.has("id"):
            return None
        value = self.take("id")
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return string(value, "id")

    def weight(self) -> float:
        """The `weight` column: a positive number, 1 where it is absent."""
        value = self.maybe_number("weight")
        if value is not None and value <= 0:
            raise DataError(
                "expected a weight above 0", field="weight", got=str(value), fix="remove rows that should not count"
            )
        return 1.0 if value is None else value

    def rest(self, claimed: Iterable[str] = ()) -> list[str]:
        """Columns that hold something and that neither this reading nor ``claimed`` nor the metadata list knows."""
        known = self._read.union(METADATA, claimed)
        return [name for name, value in self._row.items() if name not in known and not _nothing(value)]

    def done(self) -> None:
        """Raise if a column is left that nobody read: dropped silently, a model would train as if it were not there."""
        for name in self.rest():
            raise DataError(
                "no format or plugin claims this column",
                field=str(name),
                got=shown(self._row[name]),
                fix="remove the column, or install the plugin that claims it (see: modalign plugins)",
            )
