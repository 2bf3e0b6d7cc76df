"""Generators with objectives: a row that holds, laws that can be broken, and the page that says so."""

import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
import torch

import generator_matrix as matrix
from modalign.integrations.peft import LoraAdapters
from modalign.objectives.base import Objective

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/generator-matrix.md"
COMMAND = ROOT / "benchmarks/generator_matrix.py"

ROWS = {row.name: row for row in matrix.ROWS}
COLUMNS = {column.name: column for column in matrix.COLUMNS}
SAYS = {name: matrix.REFUSED if column.form == matrix.REFUSED else matrix.YES for name, column in COLUMNS.items()}
CHEAP: Final = "ltx"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_holds(column: str) -> None:
    assert matrix.tried(ROWS[CHEAP], COLUMNS[column]) == SAYS[column]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_cell_holds(tmp_path: Path) -> None:
    # a process of its own: where torchsde is not installed, the command puts something in its place
    command = [sys.executable, str(COMMAND), "--write", str(tmp_path / "page.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert body((tmp_path / "page.md").read_text()) == body(PAGE.read_text())


def test_the_others_refuse_generators_too() -> None:
    from modalign.registry import registry

    own = {name for name, one in registry.entries("objectives").items() if one.plugin == "core"}
    assert own == {*COLUMNS, *matrix.judges()}
    for name in matrix.judges():
        column = matrix.Column(name=name, title="", objective=registry.objective(name)(), start=0.0, form="")
        assert "needs a reward head, which reads the states of a backbone" in matrix.tried(ROWS[CHEAP], column)


# --- laws that are broken ------------------------------------------------------------------------------------------


def said(column: str = "dpo") -> str:
    return matrix.tried(ROWS[CHEAP], COLUMNS[column])


def test_another_closed_form_is_found() -> None:
    assert "at equal scores the loss must be 0.7; found: 0.69" in matrix.tried(
        ROWS[CHEAP], replace(COLUMNS["dpo"], start=0.7)
    )


def test_adapters_that_are_not_neutral_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = matrix.FamilyLaws.model

    def lively(self, *, adapter: bool = False):
        model = made(self, adapter=adapter)
        with torch.no_grad():
            for name, value in model.trainable().items():
                if "lora_B" in name:
                    value.add_(torch.linspace(-0.1, 0.1, value.numel()).reshape(value.shape))
        return model

    monkeypatch.setattr(matrix.FamilyLaws, "model", lively)
    assert "at equal scores the loss must be" in said("dpo")
    assert "at equal scores the loss must be" in said("sft")


def test_a_loss_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = type(COLUMNS["dpo"].objective)
    call = objective.__call__

    def broken(*given):
        loss = call(*given)
        return replace(loss, sum=loss.sum * torch.nan)

    monkeypatch.setattr(objective, "__call__", broken)
    assert re.match(r"no: .*not finite", said())


def test_adapters_that_stand_still_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_, **__: None)
    assert "adapters must move" in said()


def test_a_network_that_moves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = matrix.FamilyLaws.model

    def free(self, *, adapter: bool = False):
        model = made(self, adapter=adapter)
        model.decoders.requires_grad_(True)
        return model

    monkeypatch.setattr(matrix.FamilyLaws, "model", free)
    assert "nothing but adapters may move" in said()


def test_adapters_that_are_saved_otherwise_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    save = LoraAdapters.save

    def rounding(self, folder: Path) -> None:
        kept = {name: value.clone() for name, value in self.model.named_parameters()}
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                if "lora_" in name:
                    value.copy_(value.bfloat16())
        save(self, folder)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(kept[name])

    monkeypatch.setattr(LoraAdapters, "save", rounding)
    assert "the adapters that were saved must load again" in said()


def test_an_objective_that_trains_on_bounds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "refuse", lambda *_: None)
    assert said("simpo") == "no: it trains on what is a bound"


# --- the page ------------------------------------------------------------------------------------------------------


def table(text: str) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """Column names, and the cells of each row by family and modality."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rest = [[one.strip().strip("`") for one in line.strip("|").split("|")] for line in lines]
    rows = rest[: next(at for at, one in enumerate(rest) if one[0] == "objective")]
    return head[2:], {(one[0], one[1]): one[2:] for one in rows}


def body(text: str) -> str:
    """The page without the day and the versions of its making."""
    return re.sub(r"wrote this page on .*;", "", text)


def test_the_page_lists_every_case_of_every_plugin_and_every_column() -> None:
    columns, rows = table(PAGE.read_text())
    cases = [
        (name, modality)
        for modality in ("image", "audio", "video")
        for name in import_module(f"modalign_{modality}.generators.cases").CASES
    ]
    assert columns == list(COLUMNS)
    assert list(rows) == cases
    assert all(cells == list(SAYS.values()) for cells in rows.values())


def test_the_page_is_what_the_command_writes() -> None:
    text = PAGE.read_text()
    (day,) = re.findall(r"wrote this page on (\d{4}-\d\d-\d\d): modalign \S+, torch \S+, diffusers", text)
    cells = {(row, column): SAYS[column] for row in ROWS for column in COLUMNS}
    assert body(text) == body(matrix.page(cells, matrix.ROWS, matrix.COLUMNS, date.fromisoformat(day)))


@pytest.mark.parametrize(("found", "code"), [("yes", False), ("refused", False), ("no: a reason", True)])
def test_the_command_ends_with_1_where_a_cell_fails(
    found: str, code: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "tried", lambda row, column: found)
    monkeypatch.setattr(matrix, "without_torchsde", lambda: None)
    monkeypatch.setattr(sys, "argv", ["generator_matrix.py", "--write", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as ended:
        matrix.main()
    assert ended.value.code == code
    _, rows = table((tmp_path / "page.md").read_text())
    assert all(set(cells) == {found} for cells in rows.values())
    assert capsys.readouterr().out.count(found) == len(ROWS) * len(COLUMNS)


def test_rows_and_columns_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generator_matrix.py", "--rows", "sd,nothing"])
    with pytest.raises(SystemExit, match="no row 'nothing'; there are: ace-step"):
        matrix.main()
