"""Rows that cannot be used: what is wrong with each, kept for the report and the run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.errors import DataError
from modalign.shown import reason


@final
@dataclass(frozen=True, kw_only=True)
class BadRow:
    """One row that cannot be used.

    file, row, field: where.
    what: is wrong with it.
    got: what was found.
    fix: what to do about it.
    reason: what rows like it are counted under.
    """

    file: str
    row: int
    field: str
    what: str
    got: str | None
    fix: str | None
    reason: str

    @classmethod
    def of(cls, error: DataError) -> BadRow:
        """The row an error is about; the error must have its place."""
        return cls(
            file=error.file or "",
            row=error.row or 0,
            field=error.field or "",
            what=error.what,
            got=error.got,
            fix=error.fix,
            reason=reason(error),
        )

    def __str__(self) -> str:
        return str(DataError(self.what, file=self.file, row=self.row, field=self.field, got=self.got, fix=self.fix))


def top(reasons: Counter[str], most: int = 5) -> str:
    """The commonest reasons with their counts."""
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(most))


def write_bad_rows(path: str | Path, rows: Iterable[BadRow]) -> None:
    """Write a line of JSON for each row, ASCII only, so that no content reaches a terminal as a command."""
    with Path(path).open("w", encoding="ascii") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


class Names:
    """The ids of the rows seen so far: no two rows have the same."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def repeated(self, comparison: Comparison, place: tuple[str, int]) -> DataError | None:
        """What is wrong with a comparison whose id an earlier row has."""
        return self.again(comparison.id, place)

    def again(self, name: str | None, place: tuple[str, int]) -> DataError | None:
        """What is wrong with an id that an earlier row has."""
        if name is None:
            return None
        here = f"{place[0]}:{place[1]}"
        first = self._seen.setdefault(name, here)
        if first == here:
            return None
        return DataError(
            "an id that an earlier row has",
            field="id",
            got=f"{name[:80]!r}, also of {first}",
            fix="give every row an id of its own, or none",
        )


def collected(rows: Sequence[BadRow], name: str, total: int, most: int = 20) -> DataError:
    """One error for all rows that cannot be used: the first ones whole, the others counted."""
    listed = "\n".join(f"  {row}" for row in rows[:most])
    more = f"\n  and {len(rows) - most} more" if len(rows) > most else ""
    first = rows[0]
    return DataError(
        f"{len(rows)} of {total} rows of {name} cannot be used\n{listed}{more}\n",
        file=first.file,
        row=first.row,
        field=first.field,
        got=top(Counter(row.reason for row in rows)),
        fix="mend them (modalign data check lists all), or set on_bad_row: skip",
    )


def judge(name: str, total: int, config: DataConfig, bad: Sequence[BadRow]) -> None:
    """Raise where a data set's policy says that rows which cannot be used are too many.

    name, total: of the data set, and its rows.
    """
    if bad and config.on_bad_row == "error":
        raise collected(bad, name, total)
    if len(bad) / total > config.max_bad_fraction:
        raise DataError(
            f"{len(bad)} of {total} rows cannot be used, more than max_bad_fraction={config.max_bad_fraction:g}",
            file=bad[0].file,
            row=bad[0].row,
            field=bad[0].field,
            got=top(Counter(row.reason for row in bad)),
            fix="mend the rows (modalign data check lists them), or raise max_bad_fraction",
        )
