"""align-anything's rows: two responses, an overall preference, and by dimension a preference, rates and words.

Ji et al. 2024, https://arxiv.org/abs/2412.15838. What the columns mean is declared in `align_anything_columns`, subset
by subset; a column that is not declared is an error, as everywhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

from modalign.comparison import Comparison, Origin
from modalign.content import Fact, Feedback, Message, Part, Response
from modalign.data.fields import Fields, expected, number, string
from modalign.data.messages import Parser, nonempty, response
from modalign.errors import DataError, Skipped
from modalign.roles import Format
from modalign.shown import shown
from modalign_text.align_anything_columns import (
    ANSWER_MEDIA,
    CRITIQUES,
    PROMPT_MEDIA,
    PROMPTS,
    REFINEMENTS,
    REMARKS,
    SOURCES,
    Subset,
    subset_of,
)


@final
class AlignAnything(Format):
    """Rows of any subset; the better response by `overall_*` is the chosen one.

    A row without an overall preference (0, null, or anything but 1 and 2) is skipped and counted.
    """

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return subset_of(columns, named=frozenset(row)) is not None

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        named = frozenset(row)
        columns = frozenset(name for name, value in row.items() if value is not None)
        # a row of which even a response is null is of the subset its columns name: it may say that it is not to be used
        subset = subset_of(columns, named=named) or subset_of(named)
        if subset is None:
            raise DataError(
                "these columns are of no subset of align-anything",
                field="(whole row)",
                got=", ".join(map(str, row)),
                fix="the columns of each are in the docs; rename them, or use another format",
            )
        return _Row(row, subset, root).comparison(origin)


class _Row:
    """One row as its subset says."""

    def __init__(self, row: Mapping[str, object], subset: Subset, root: Path | None) -> None:
        self.row, self.subset = row, subset
        taken = {*PROMPT_MEDIA.get(subset.asks or "", ())}
        if subset.answers is not None:
            taken |= {column.format(which) for column in ANSWER_MEDIA[subset.answers] for which in (1, 2)}
        # media columns have their place here: they are not the parser's, which would put all of them into the prompt
        self.fields = Fields({name: value for name, value in row.items() if name not in taken})
        self.parser = Parser(self.fields, root=root)

    def comparison(self, origin: Origin) -> Comparison:
        overall = self.fields.take(column) if self.fields.has(column := f"overall_{self.subset.label}") else None
        better = _which(overall, column)
        if better is None:
            raise Skipped("no overall preference", field=column, got=shown(overall), fix="the row is left out")
        prompt = self.prompt()
        answers = {which: self.answer(which) for which in (1, 2)}
        said = {letters: self.preference(letters) for letters in self.subset.dimensions}
        preferences = {
            self.subset.dimensions[letters]: first if better == 1 else 1.0 - first
            for letters, first in said.items()
            if first is not None
        }
        facts: dict[str, Fact] = {name: self.fields.text(name) for name in REMARKS if self._said(name)}
        pair = Comparison.pair(prompt, answers[better], answers[3 - better])
        name = self.fields.name()
        self.parser.done()
        return replace(
            pair, preferences=preferences, facts={"subset": self.subset.name, **facts}, id=name, origin=origin
        )

    def prompt(self) -> tuple[Message, ...]:
        column = self._only(PROMPTS)
        words = self.fields.text(column)
        parts: tuple[Part, ...] = ()
        if self.subset.asks is not None:
            where = self._only(PROMPT_MEDIA[self.subset.asks], self.row)
            parts = (self._medium(self.subset.asks, self.row[where], where),)
            words = words.replace(f"<{self.subset.asks}>", "").strip()  # the mark of where it goes: before the words
        text = () if parts and not words.strip() else (Part(modality="text", value=words),)
        return nonempty((Message(role="user", parts=(*parts, *text)),), column)

    def answer(self, which: int) -> Response:
        """A response with all that was said of it."""
        column, parts = f"response_{which}", []
        media = [one.format(which) for one in ANSWER_MEDIA.get(self.subset.answers or "", ())]
        found = next((one for one in media if self.row.get(one) is not None), None)
        if self.subset.words:
            parts.append(Part(modality="text", value=self.fields.text(column)))
        elif found is None:
            assert self.subset.answers is not None
            parts.append(self._medium(self.subset.answers, self.fields.take(column), column))
        if found is not None:
            assert self.subset.answers is not None
            parts.append(self._medium(self.subset.answers, self.row[self._only(media, self.row)], found))
        scores = {one: self.fields.maybe_number(f"{one}_rate_{which}") for one in self.subset.dimensions.values()}
        source = self._one(SOURCES, which)
        return response(
            (Message(role="assistant", parts=tuple(parts)),),
            column,
            scores={name: rate for name, rate in scores.items() if rate is not None},
            critique=self._one(CRITIQUES, which),
            refinement=self._one(REFINEMENTS, which),
            feedback=self.feedback(which),
            facts={} if source is None else {"source": source},
        )

    def feedback(self, which: int) -> dict[str, Feedback]:
        """What was said of a response in each dimension."""
        found: dict[str, Feedback] = {}
        for letters, dimension in self.subset.dimensions.items():
            words = {
                kind: self._one((f"{letters}_{kind}_{{}}", f"{dimension}_{kind}_{{}}"), which)
                for kind in ("rationale", "critique", "refinement")
            }
            if any(words.values()):
                found[dimension] = Feedback(**words)
        return found

    def preference(self, letters: str) -> float | None:
        """The probability that response 1 is the better one in a dimension: 0 beside equal rates is a tie."""
        column = f"{letters}_{self.subset.label}"
        value = self.fields.take(column) if self.fields.has(column) else None
        if (better := _which(value, column)) is not None:
            return 2.0 - better
        dimension = self.subset.dimensions[letters]
        rates = [self.row.get(f"{dimension}_rate_{which}") for which in (1, 2)]
        return 0.5 if value in (0, "0") and rates[0] is not None and rates[0] == rates[1] else None

    def _medium(self, modality: str, value: object, column: str) -> Part:
        return self.parser.block({"type": modality, modality: value}, column)

    def _said(self, column: str) -> bool:
        """Whether a column of words says anything; it counts as read either way."""
        return self.fields.has(column) and self.fields.take(column) != ""

    def _one(self, columns: tuple[str, ...], which: int) -> str | None:
        """The words of the one of some columns that is there."""
        there = [one for one in dict.fromkeys(column.format(which) for column in columns) if self._said(one)]
        if len(there) > 1:
            raise DataError(f"two columns say the same thing: {' and '.join(there)}", field=there[1])
        return self.fields.text(there[0]) if there else None

    def _only(self, columns: tuple[str, ...] | list[str], row: Mapping[str, object] | None = None) -> str:
        there = [column for column in columns if (self.row if row is None else row).get(column) is not None]
        if len(there) != 1:
            raise DataError(
                f"expected one of the columns {', '.join(columns)}", field=columns[0], got=", ".join(there) or "none"
            )
        return there[0]


@final
class Refined(Format):
    """align-anything's pairs of language feedback: the refined response is better than the first one."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt", "response", "refinement"} <= columns and not columns & {"chosen", "rejected", "completion"}

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        held = {name: _content(one, name) for name in PROMPT_MEDIA if isinstance(one := row.get(name), str)}
        fields = Fields({**row, **held})
        parser = Parser(fields, root=root)
        words = fields.text("prompt")
        prompt = nonempty((Message(role="user", parts=(Part(modality="text", value=words),)),), "prompt")
        better, worse = fields.text("refinement"), fields.text("response")
        said = fields.maybe_text("critique")
        pair = Comparison.pair(
            parser.attach(prompt),
            response(parser.completion(better, "refinement", conversation=True), "refinement"),
            response(
                parser.completion(worse, "response", conversation=True), "response", critique=said, refinement=better
            ),
        )
        name = fields.name()
        parser.done()
        return replace(pair, id=name, origin=origin)


def _content(value: str, column: str) -> str | bytes:
    """The bytes of a string of base64; the name of a file has a dot, which base64 does not, and stays as it is."""
    text = string(value, column)
    if "." in text:
        return text
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            "neither base64 nor the name of a file", field=column, got=shown(text), fix="write one of them"
        ) from error


def _which(value: object, column: str) -> int | None:
    """Which response is preferred, 1 or 2; None where neither is."""
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, str) or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN: nobody said
        return None
    if isinstance(value, bool):
        raise expected("1 or 2", value, column)
    found = number(value, column)
    return int(found) if found in (1, 2) else None
