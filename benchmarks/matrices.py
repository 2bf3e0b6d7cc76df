"""What the matrices share: a cell that says yes or why not, a table, and names that are chosen."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol, TypeVar

import torch

from modalign.errors import ModalignError
from modalign.model import Model
from modalign.testing.case import require
from modalign.training import Trainer
from modalign.training.storage.metricslog import read_metrics

YES: Final = "yes"
REFUSED: Final = "refused"


class Named(Protocol):
    """A row or a column."""

    @property
    def name(self) -> str: ...


class Keyed(Named, Protocol):
    """A row."""

    @property
    def key(self) -> str: ...


_Named = TypeVar("_Named", bound=Named)
_Row = TypeVar("_Row", bound=Keyed)
_Column = TypeVar("_Column", bound=Named)


def said(tried: Callable[[], str]) -> str:
    """What a cell says: what trying it gives, or why not."""
    try:
        return tried()
    except Exception as error:
        kind = "" if isinstance(error, ModalignError) else f"{type(error).__name__}: "
        return f"no: {kind}{' '.join(str(error).split())[:200]}"


def check_run(
    trainer: Trainer, start: float | None, moves: Iterable[str], again: Callable[[Path], Model], *, close: float = 1e-9
) -> None:
    """Train, and raise where a loss or a gradient is not finite, anything moves that should not, or nothing does, or
    what is saved is not what the run ended with.

    start: the first loss; None where it has no closed form.
    moves: what is in the name of everything that moves.
    again: loads what was saved.
    close: how near the first loss must be, relative.
    """
    model, moves = trainer.parts.model, tuple(moves)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer.train()
    lines = [one for one in read_metrics(run.folder / "metrics.jsonl") if "loss" in one]
    losses, norms = [one["loss"] for one in lines], [one["grad_norm"] for one in lines]
    steps = trainer.parts.plan.steps
    require(len(losses) == steps, f"{steps} steps must give a loss each; found: {losses}")
    require(all(map(math.isfinite, (*losses, *norms))), f"losses must be finite; found: {losses}, gradients {norms}")
    equal = start is None or math.isclose(losses[0], start, rel_tol=close)
    require(equal, f"at equal scores the loss must be {start}; found: {losses[0]}")
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    require(bool(moved), "adapters must move")
    strange = sorted(name for name in moved if not any(one in name for one in moves))
    require(not strange, f"nothing but adapters may move; found: {strange[:3]}")
    trained, found = model.trainable(), again(run.folder / "final").trainable()
    # adapters in a decoder that the objective does not ask were frozen for the run, and are not any more
    require(
        all(name in found and value.equal(found[name]) for name, value in trained.items()),
        "the adapters that were saved must load again",
    )


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *([one.replace("|", "/") for one in row] for row in body)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def command(
    about: str | None,
    rows: Sequence[_Row],
    columns: Sequence[_Column],
    tried: Callable[[_Row, _Column], str],
    page: Callable[[Mapping[tuple[str, str], str], Sequence[_Row], Sequence[_Column], date], str],
    *,
    good: Sequence[str] = (YES,),
) -> None:
    """The program of a matrix: try the cells, say or write what came of them, and end with 1 where one is not good.

    about: what its help says.
    tried: what a cell says.
    page: the page, of what each cell says by the keys of row and column, and the day.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page; takes every row and column")
    parser.add_argument("--rows", help="names of rows, with commas between")
    parser.add_argument("--columns", help="names of objectives, with commas between")
    args = parser.parse_args()
    if args.write and (args.rows or args.columns):
        parser.error("--write takes every row and column")
    rows, columns = chosen(rows, args.rows, "row"), chosen(columns, args.columns, "column")
    torch.set_num_threads(1)
    cells: dict[tuple[str, str], str] = {}
    for row in rows:
        for column in columns:
            began = time.perf_counter()
            found = cells[row.key, column.name] = tried(row, column)
            print(f"{row.key:32} {column.name:16} {time.perf_counter() - began:5.1f} s  {found}", flush=True)
    if args.write:
        args.write.write_text(page(cells, rows, columns, date.today()), encoding="utf-8")
    sys.exit(any(one not in good for one in cells.values()))


def chosen(known: Sequence[_Named], names: str | None, what: str) -> list[_Named]:
    """Those of these names, with commas between, or all; ends the program where there is no such one.

    what: a row or a column.
    """
    there = {one.name for one in known}
    wanted = there if names is None else set(names.split(","))
    if unknown := sorted(wanted - there):
        sys.exit(f"no {what} {unknown[0]!r}; there are: {', '.join(sorted(there))}")
    return [one for one in known if one.name in wanted]


def versions(*more: str) -> str:
    """Versions of what ran."""
    return ", ".join(f"{one} {version(one)}" for one in ("modalign", "torch", *more))
