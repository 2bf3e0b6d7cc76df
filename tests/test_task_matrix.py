"""Tasks of align-anything with objectives: cells that hold, runs that teach nothing, and the page that says so."""

import re
import sys
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path

import pytest
import torch

import task_matrix as matrix
from matrices import YES
from modalign.registry import registry
from modalign.training import Trainer
from modalign_text.align_anything_columns import SUBSETS

PAGE = Path(__file__).parent.parent / "docs/task-matrix.md"
ROWS = {row.name: row for row in matrix.ROWS}
COLUMNS = {column.name: column for column in matrix.COLUMNS}
LONG = ("text-image-audio-video-to-text-image-audio-video", "text-video-to-audio", "text-image-to-video")  # seconds
QUICK = [(row, "dpo") for row in ROWS if row not in LONG] + [
    ("text-to-image", column) for column in COLUMNS if column != "dpo"
]

# AudioLDM 2 of diffusers 0.42.1 has GPT-2 go on from what it kept, by the name that had before transformers 5.24.
pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def wanted(row: matrix.Row) -> str:
    """What a cell should say here."""
    there = row.plugin is None or row.plugin in registry.entries("modalities")
    return YES if there else matrix.NOT_TRIED


@pytest.mark.parametrize(("row", "column"), QUICK)
def test_a_cell_of_every_task_and_of_every_objective_holds(row: str, column: str) -> None:
    assert matrix.tried(ROWS[row], COLUMNS[column]) == wanted(ROWS[row])


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), [(row, column) for row in ROWS for column in COLUMNS])
def test_every_cell_holds(row: str, column: str) -> None:
    assert matrix.tried(ROWS[row], COLUMNS[column]) == wanted(ROWS[row])


def test_a_row_whose_plugin_is_absent_is_not_tried_and_how_to_install_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(ROWS["text-to-text"], plugin="smell")
    monkeypatch.setattr(matrix, "ROWS", (row,))
    monkeypatch.setattr(sys, "argv", ["task_matrix.py", "--columns", "dpo"])
    with pytest.raises(SystemExit) as ended:
        matrix.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "pip install -e contrib/smell" in said
    assert f"  {matrix.NOT_TRIED}" in said


def test_a_run_that_teaches_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = count(1.0)
    monkeypatch.setattr(Trainer, "evaluate", lambda self: {"eval_loss": next(losses)})
    said = matrix.tried(ROWS["text-to-text"], COLUMNS["dpo"])
    assert said == "no: training must lower the loss over all rows; found: 1, then 2"


def test_rows_that_another_format_reads_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "rows.jsonl"
    other.write_text('{"prompt": "2+2?", "chosen": "4", "rejected": "5"}\n')
    monkeypatch.setattr(matrix, "sample", lambda *_: other)
    said = matrix.tried(ROWS["text-to-text"], COLUMNS["dpo"])
    assert said.startswith("no: the rows must be align-anything's; found: ")


def test_every_subset_has_a_row() -> None:
    assert {row.subset for row in matrix.ROWS if row.subset is not None} == SUBSETS.keys()


def body(text: str) -> str:
    """The page without the day and the versions of its making."""
    return re.sub(r"wrote this page on .*;", "", text)


def test_the_page_is_what_the_command_writes() -> None:
    cells = {(row, column): YES for row in ROWS for column in COLUMNS}
    assert body(PAGE.read_text()) == body(matrix.page(cells, matrix.ROWS, matrix.COLUMNS, date(2026, 1, 1)))


@pytest.mark.parametrize(("found", "code"), [(YES, False), ("no: a reason", True)])
def test_the_command_ends_with_1_where_a_cell_fails(
    found: str, code: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "tried", lambda row, column: found)
    monkeypatch.setattr(sys, "argv", ["task_matrix.py", "--write", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as ended:
        matrix.main()
    assert ended.value.code == code
    assert (tmp_path / "page.md").read_text().count(found) >= len(ROWS) * len(COLUMNS)
