"""`modalign data`: looks at a data set and shows every row that cannot be used, or writes it in another form."""

from __future__ import annotations

import json as encoder
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modalign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from modalign.data.survey import Report

_SHOWN = 50  #: bad rows on the screen; --json and --bad-rows give all


def check(
    path: str,
    *,
    format: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    root: Path | None = None,
    limit: int | None = None,
    model: str | None = None,
    max_length: int | None = None,
    preference_weights: dict[str, float] | None = None,
    bad_rows: Path | None = None,
    json: bool = False,
) -> int:
    """Read all of a data set once; report every row that cannot be used, and statistics of the others.

    Ends with exit code 3 if there is such a row.

    Parameters
    ----------
    path
        A file (.jsonl, .json, .parquet, .gz), a folder of them, an id on the hub, or `oracle`.
    format
        Name of the row format; by default the one that claims the columns.
    split
        Split of a folder or of a data set on the hub.
    revision
        Branch, tag or commit of an id on the hub.
    root
        Folder that media files lie in; by default the data file's own.
    limit
        Look at the first rows only.
    model
        A model whose tokens are counted; then rows too long, or the same once encoded, are found as well.
    max_length
        Most tokens of prompt and response together; needs a model.
    preference_weights
        How much each dimension of preference counts in the order of a pair: `--preference_weights.helpfulness 1`.
    bad_rows
        Write each bad row to this file, a line of JSON each.
    json
        Print JSON instead of tables.
    """
    from rich.console import Console

    from modalign.data import check as look
    from modalign.data import read, write_bad_rows

    if max_length is not None and model is None:
        raise ConfigError(
            "only a model's tokens can be counted",
            where="--max-length",
            got="no --model",
            fix="name the model with --model",
        )
    _writable(bad_rows)
    preparer = None
    if model is not None:
        from modalign.loading import load

        preparer = load(model).assembly.preparer
    data = read(
        path,
        format=format,
        split=split,
        revision=revision,
        root=root,
        limit=limit,
        preference_weights=preference_weights,
    )
    screen = Console(stderr=True)
    if screen.is_terminal:
        with screen.status("reading") as status:
            total = len(data)
            report = look(
                data, preparer, max_length=max_length, progress=lambda done: status.update(f"{done} of {total} rows")
            )
    else:
        report = look(data, preparer, max_length=max_length)
    if bad_rows is not None:
        write_bad_rows(bad_rows, report.bad_rows)
    if json:
        print(encoder.dumps(asdict(report) | {"reasons": dict(report.reasons)}, indent=2))
    else:
        show(report, Console())
    return DataError.exit_code if report.bad_rows else 0


def convert(
    source: str,
    target: Path,
    *,
    format: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    root: Path | None = None,
    limit: int | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    max_bad_fraction: float = 0.01,
    bad_rows: Path | None = None,
) -> int:
    """Write a data set as parquet with its media inside, or as a folder of JSON lines with its media as files.

    Every row is read back before it counts. What exists is not overwritten; nothing is left of what fails.

    Parameters
    ----------
    source
        A file (.jsonl, .json, .parquet, .gz), a folder of them, an id on the hub, or `oracle`.
    target
        FILE.parquet, or the name of a folder to make.
    format
        Name of the source's row format; by default the one that claims the columns.
    split
        Split of a folder or of a data set on the hub.
    revision
        Branch, tag or commit of an id on the hub.
    root
        Folder that media files lie in; by default the data file's own.
    limit
        Convert the first rows only.
    on_bad_row
        `error` lists the rows that cannot be used and writes nothing; `skip` leaves them out.
    max_bad_fraction
        With `skip`, write nothing if more than this share of the rows is bad.
    bad_rows
        With `skip`, write each bad row to this file, a line of JSON each.
    """
    from rich.console import Console

    from modalign.data import convert as write
    from modalign.data import read, write_bad_rows

    _writable(bad_rows)
    policy = {"on_bad_row": on_bad_row, "max_bad_fraction": max_bad_fraction}
    data = read(source, format=format, split=split, revision=revision, root=root, limit=limit, **policy)
    screen = Console(stderr=True)
    if screen.is_terminal:
        with screen.status("reading") as status:
            done = write(data, target, progress=lambda rows: status.update(f"{rows} of {len(data)} rows"))
    else:
        done = write(data, target)
    if bad_rows is not None:
        write_bad_rows(bad_rows, done.bad_rows)
    print(f"{done.rows} rows and {done.media} media in {done.path}")
    if done.encoded:
        print(f"{done.encoded} media were in memory, and are now as their plugins encode them")
    if done.skipped:
        print(f"skipped: {_counts(done.skipped)}")
    for bad in done.bad_rows[:_SHOWN]:
        print(f"left out: {bad}")
    if len(done.bad_rows) > _SHOWN:
        print(f"and {len(done.bad_rows) - _SHOWN} more; --bad-rows FILE writes all of them")
    return 0


def _writable(bad_rows: Path | None) -> None:
    if bad_rows is not None and not bad_rows.absolute().parent.is_dir():
        raise ConfigError(
            "the bad rows cannot be written there",
            where="--bad-rows",
            got=f"no folder {bad_rows.parent}",
            fix="make it",
        )


def show(report: Report, screen: Console) -> None:
    """Print a report as tables."""
    from rich.markup import escape
    from rich.table import Table

    from modalign.shown import printable

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("data", escape(printable(report.name)))
    facts.add_row("format", report.format or "comparisons")
    facts.add_row("digest", report.digest)
    skipped = f", {sum(report.skipped.values())} skipped" if report.skipped else ""
    facts.add_row("rows", f"{report.rows}: {report.good} good, {len(report.bad_rows)} bad{skipped}")
    if report.skipped:
        facts.add_row("skipped", escape(_counts(report.skipped)))
    facts.add_row("kinds", _counts(report.kinds))
    facts.add_row("parts", _counts(report.modalities))
    if report.ignored:
        facts.add_row("not read", _counts(report.ignored))
    screen.print(facts)
    if report.lengths:
        table = Table(
            "length", "least", "mean", "median", "95 %", "most", box=None, pad_edge=False, header_style="bold"
        )
        for name, one in report.lengths.items():
            table.add_row(name, str(one.least), f"{one.mean:.1f}", str(one.median), str(one.p95), str(one.most))
        screen.print(table)
    for note in (*report.notes, *report.warnings):
        screen.print(f"[yellow]note:[/] {escape(printable(note))}", highlight=False)
    if report.bad_rows:
        _show_bad(report, screen)
    else:
        screen.print("[green]every row can be used[/]")


def _show_bad(report: Report, screen: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("row", "field", "what", "found", "to mend", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for bad in report.bad_rows[:_SHOWN]:
        cells = (f"{Path(bad.file).name}:{bad.row}", bad.field, bad.what, bad.got or "", bad.fix or "")
        table.add_row(*(escape(cell) for cell in cells))
    screen.print(table)
    if len(report.bad_rows) > _SHOWN:
        screen.print(f"and {len(report.bad_rows) - _SHOWN} more; --bad-rows FILE writes all of them")
    screen.print(
        f"[red]{len(report.bad_rows)} of {report.rows} rows cannot be used[/]: {escape(_counts(report.reasons))}"
    )


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.items()) or "none"
