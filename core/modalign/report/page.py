"""A report as data, and as one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, final

from modalign import __version__
from modalign.report.curves import Chart
from modalign.training.storage.durable import replace_file

if TYPE_CHECKING:
    from jinja2 import Template


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """One share with its interval.

    label, note: what it is.
    role: CSS class that colours it.
    value, low, high: from 0 to 1.
    """

    label: str
    note: str
    role: str
    value: float
    low: float
    high: float


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number in a table, with its interval and how it compares with the table's first column.

    better: None where the intervals overlap.
    """

    value: float
    low: float
    high: float
    better: bool | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table of shares."""

    name: str
    cells: tuple[Cell, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of words and shares.

    title, note: above it.
    head: of its columns; the first one names the lines.
    lines: as long as the head; a `Cell` is shown with its bar and its interval.
    """

    title: str
    note: str
    head: tuple[str, ...]
    lines: tuple[tuple[str | Cell, ...], ...]


@final
@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG drawn here.

    title, note: above it.
    svg: as it is; nothing in it is escaped again.
    """

    title: str
    note: str
    svg: str


@final
@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side.

    title, note: above them.
    columns: at most so many in a row.
    """

    title: str
    note: str
    pictures: tuple[Picture, ...]
    columns: int = 3


@final
@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response as shown.

    label, role: whose it is.
    html: the response, escaped by its modality.
    marks: each attribute and whether it is right.
    summary: in a word.
    right: whether all of it is.
    """

    label: str
    role: str
    html: str
    marks: tuple[tuple[str, bool], ...] = ()
    summary: str = ""
    right: bool | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt and responses to it, side by side.

    prompt: escaped by its modality.
    """

    prompt: str
    answers: tuple[Answer, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything a report shows; what is empty is left out.

    title, lead: the heading, and the one sentence that matters.
    good: whether the lead is good news; None where that is not asked.
    facts: short ones under the heading, (name, value).
    bars, bars_title, bars_note: shares with intervals.
    columns, rows, rows_title, rows_note: a table of shares: its columns' labels with their roles.
    tables, galleries: further tables, and pictures.
    charts: curves.
    examples, examples_note: what the model was shown.
    cases, cases_note: responses to compare.
    settings: a table of (name, value) per heading.
    """

    title: str
    lead: str
    good: bool | None = None
    facts: tuple[tuple[str, str], ...] = ()
    bars_title: str = ""
    bars_note: str = ""
    bars: tuple[Bar, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...] = ()
    rows_title: str = "By attribute"
    rows_note: str = "Share of responses that show the attribute as asked; an unreadable response shows nothing."
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    charts: tuple[Chart, ...] = ()
    examples_note: str = ""
    examples: tuple[Case, ...] = ()
    cases_note: str = ""
    cases: tuple[Case, ...] = ()
    settings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


def render(page: Page) -> str:
    """The page as HTML. Everything is escaped but the SVG drawn here and what a modality has escaped itself."""
    return _template().render(page=page, version=__version__)


def write(page: Page, file: Path) -> Path:
    """Write the page, whole or not at all; returns the file."""
    replace_file(file, render(page).encode("utf-8", "backslashreplace"))
    return file


@cache
def _template() -> Template:
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("modalign", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja")
