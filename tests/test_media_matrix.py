"""Models that read media with objectives: cells that hold, laws that can be broken, and the page that says so."""

import math
import re
import sys
from datetime import date
from pathlib import Path

import pytest
import torch

import media_matrix as matrix
from modalign.errors import PluginError
from modalign.model import Model
from modalign.objectives import DPO, BradleyTerry
from modalign_text.multimodal.laws import Cell, flat

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/media-matrix.md"

ROWS = {row.key: row for row in matrix.ROWS}
COLUMNS = {column.name: column for column in matrix.COLUMNS}
SLOW = {"qwen2_5_omni_thinker video", "qwen3_omni_moe_thinker video"}  # seconds each; their families have other rows
CHEAP = [(row, "dpo") for row in ROWS if row not in SLOW] + [
    ("llava image", column) for column in COLUMNS if column != "dpo"
]
CHEAP += [("smolvlm video", "reward"), ("qwen2_audio audio", "reward"), ("whisper + llama audio", "reward")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), CHEAP)
def test_a_cell_of_every_model_and_of_every_objective_holds(row: str, column: str, models: Path) -> None:
    assert matrix.tried(ROWS[row], COLUMNS[column], models) == matrix.YES


@pytest.mark.parametrize("row", [row.key for row in matrix.FURTHER if row.modality == "image"])
def test_further_families_hold_the_same_laws(row: str, models: Path) -> None:
    (one,) = [further for further in matrix.FURTHER if further.key == row]
    assert matrix.tried(one, COLUMNS["dpo"], models) == matrix.YES


@pytest.mark.slow
@pytest.mark.parametrize("row", matrix.FURTHER, ids=lambda row: row.key)
def test_further_families_hold_them_as_reward_models_and_with_clips(row: matrix.Row, models: Path) -> None:
    for column in ("dpo", "reward"):
        assert matrix.tried(row, COLUMNS[column], models) == matrix.YES


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", ROWS)
def test_every_cell_holds(row: str, models: Path) -> None:
    said = {column: matrix.tried(ROWS[row], COLUMNS[column], models) for column in COLUMNS}
    assert said == dict.fromkeys(COLUMNS, matrix.YES)


# --- laws that are broken ------------------------------------------------------------------------------------------


def cell(models: Path, folder: Path, objective: DPO | BradleyTerry, start: float = math.log(2)) -> Cell:
    return Cell(ROWS["clip + llama image"].made(models), objective, "image", lambda _: start, folder)


def test_another_closed_form_is_found(models: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"at equal scores the loss must be 0\.7"):
        cell(models, tmp_path, DPO(), start=0.7).check()


def test_adapters_that_are_not_neutral_are_found(models: Path, tmp_path: Path) -> None:
    found = cell(models, tmp_path, BradleyTerry())
    adapters = found.model.assembly.adapters
    assert adapters is not None
    with torch.no_grad():
        for value in adapters.parameters():
            value.add_(0.01)
    with pytest.raises(PluginError, match="new adapters must change nothing"):
        found.check()


def test_a_model_that_does_not_look_is_found(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = Model.embed
    monkeypatch.setattr(Model, "embed", lambda self, batch: {k: v * 0 for k, v in embed(self, batch).items()})
    with pytest.raises(PluginError, match="another medium must give other scores"):
        cell(models, tmp_path, DPO()).check()


def test_branches_that_score_otherwise_than_rows_are_found(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cell(models, tmp_path, BradleyTerry())
    scores = found.scores

    def drifting(batch, *, base=False):
        given = scores(batch, base=base)
        if not batch.layout.plain:
            given.rewards["reward"].mul_(1.001)
        return given

    monkeypatch.setattr(found, "scores", drifting)
    with pytest.raises(PluginError, match="must score as separate rows do"):
        found.check()


def test_a_step_that_does_not_learn_is_found(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_, **__: None)
    with pytest.raises(PluginError, match="a step must lower the loss"):
        cell(models, tmp_path, DPO()).check()


def test_a_tower_that_moves_is_found(models: Path, tmp_path: Path) -> None:
    model = ROWS["clip + llama image"].made(models)
    model.encoders.requires_grad_(True)
    with pytest.raises(PluginError, match=r"what is frozen must not move.*encoders\.image"):
        Cell(model, DPO(), "image", lambda _: math.log(2), tmp_path).check()


def test_a_part_that_should_move_and_does_not_is_found(models: Path, tmp_path: Path) -> None:
    model = ROWS["clip + llama image"].made(models)
    model.connectors.requires_grad_(False)
    with pytest.raises(PluginError, match="connectors must move"):
        Cell(model, DPO(), "image", lambda _: math.log(2), tmp_path).check()


def test_a_tower_that_runs_twice_is_found(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.caching.memo.Memo.recall", lambda *_: None)
    with pytest.raises(PluginError, match=r"5 media must be 5 passes of the tower; found: 10"):
        cell(models, tmp_path, DPO()).check()


def test_a_reference_that_moves_is_found(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cell(models, tmp_path, DPO())
    train = found.trainer.train

    def leaking() -> None:
        train()
        for value in found.base.tensors().values():
            value.add_(0.1)

    monkeypatch.setattr(found.trainer, "train", leaking)
    with pytest.raises(PluginError, match="the base must answer as before"):
        found.check()


def test_a_margin_that_does_not_turn_round_is_found(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalign_text.multimodal.laws.margin", lambda loss: abs(float(loss.mean)))
    with pytest.raises(PluginError, match="must negate the margin"):
        cell(models, tmp_path, BradleyTerry()).check()


def test_a_flat_model_is_itself_again(models: Path) -> None:
    model = ROWS["clip + llama image"].made(models)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with flat(model) as tokens:
        assert tokens == 320
        assert any(not value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


# --- the page ------------------------------------------------------------------------------------------------------


def table(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Column names, and the cells of each row by model and medium."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rest = [[one.strip() for one in line.strip("|").split("|")] for line in lines]
    body = rest[: next(at for at, one in enumerate(rest) if one[0] == "objective")]
    return [one.strip("`") for one in head[2:]], {f"{one[0]} {one[1]}": one[2:] for one in body}


def test_the_page_has_the_rows_and_columns_there_are() -> None:
    columns, rows = table(PAGE.read_text())
    assert columns == list(COLUMNS)
    assert list(rows) == list(ROWS)
    assert all(cells == [matrix.YES] * len(COLUMNS) for cells in rows.values())


def test_the_page_is_what_the_command_writes() -> None:
    text = PAGE.read_text()
    (day,) = re.findall(r"wrote this page on (\d{4}-\d\d-\d\d)", text)
    cells = {(row, column): matrix.YES for row in ROWS for column in COLUMNS}
    written = matrix.page(cells, matrix.ROWS, matrix.COLUMNS, date.fromisoformat(day))
    # versions are those of the day
    assert re.sub(r"\d{4}-\d\d-\d\d: .*;", "", text) == re.sub(r"\d{4}-\d\d-\d\d: .*;", "", written)


def test_the_rows_are_all_families_and_every_registered_encoder() -> None:
    from modalign.registry import registry
    from modalign_text.multimodal.testing import MULTIMODAL

    assert {row.name for row in matrix.ROWS} > MULTIMODAL.keys()
    own = {name for name, one in registry.entries("objectives").items() if one.plugin == "core"}
    assert own == {*COLUMNS, *matrix.ELSEWHERE}
    composed = {row.modality for row in matrix.ROWS if "+" in row.name}
    assert composed == {str(one.declarations["modality"]) for one in registry.entries("encoders").values()}


@pytest.mark.parametrize(("found", "code"), [("yes", False), ("no: a reason", True)])
def test_the_command_ends_with_1_where_a_cell_fails(
    found: str, code: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "tried", lambda row, column, models: found)
    monkeypatch.setattr(sys, "argv", ["media_matrix.py", "--write", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as ended:
        matrix.main()
    assert ended.value.code == code
    columns, rows = table((tmp_path / "page.md").read_text())
    assert all(cells == [found] * len(columns) for cells in rows.values())
    assert capsys.readouterr().out.count(found) == len(ROWS) * len(COLUMNS)
