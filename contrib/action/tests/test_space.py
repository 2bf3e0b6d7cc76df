"""Ranges of actions: measured on rows, kept in a folder, and units of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cases import TABLE, UP, action, answer, asked, row, rows
from modalign.comparison import Comparison
from modalign.content import Part
from modalign.errors import CheckpointError, DataError
from modalign_action import ActionSpace, fit
from modalign_action.__main__ import main


def chunk(table: object, rate: float | None = None) -> Comparison:
    part = Part(modality="action", value=torch.tensor(table), facts={} if rate is None else {"rate": rate})
    return Comparison.unpaired(asked(UP), answer(part))


def test_ranges_are_quantiles_of_responses(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(50, 4, 2)).astype(np.float32)
    history = asked(UP, Part(modality="action", value=torch.full((9, 2), 1e6)))
    found = [Comparison.unpaired(history, answer(Part(modality="action", value=torch.tensor(one)))) for one in values]
    space = fit(found, tmp_path / "fitted", bins=16, quantiles=(0.1, 0.9))
    flat = values.reshape(-1, 2).astype(np.float64)
    assert space.low == pytest.approx(np.quantile(flat, 0.1, axis=0))
    assert space.high == pytest.approx(np.quantile(flat, 0.9, axis=0))
    assert (space.shape, space.bins, space.rate) == ((4, 2), 16, None)
    assert ActionSpace.load(tmp_path / "fitted") == space


def test_a_dimension_that_never_moves_has_a_range_too(tmp_path: Path):
    space = fit([chunk([[0.0, 500.0, 1.0], [0.0, 500.0, 2.0]])], tmp_path, quantiles=(0, 1))
    assert space.low == pytest.approx((-1e-3, 499.5, 1.0))
    assert space.high == pytest.approx((1e-3, 500.5, 2.0))


def test_units_and_back():
    space = ActionSpace(steps=2, low=(0.0, -4.0), high=(1.0, 4.0))
    table = torch.tensor([[0.0, 4.0], [0.75, 8.0]])
    assert space.unit(table).tolist() == [[-1.0, 1.0], [0.5, 2.0]]
    assert torch.equal(space.back(space.unit(table)), table)


def test_one_size_and_one_rate(tmp_path: Path):
    with pytest.raises(DataError, match="equally many steps") as caught:
        fit([chunk(TABLE), chunk([[1.0, 2.0, 3.0]])], tmp_path)
    assert "(1, 3), and (2, 3)" in str(caught.value)
    with pytest.raises(DataError, match="one rate") as caught:
        fit(str(rows(tmp_path, {**row(TABLE, rate=10), "rejected": row(TABLE, rate=20)["chosen"]})), tmp_path)
    assert "20 Hz, and 10 Hz" in str(caught.value)
    assert fit([chunk(TABLE, 10.0), chunk(TABLE)], tmp_path / "one").rate == 10.0
    with pytest.raises(DataError, match="no response has actions"):
        fit([Comparison.unpaired(asked(UP, action(UP)), answer(Part(modality="text", value="no")))], tmp_path)
    assert not (tmp_path / "action.json").exists()


def test_the_command_makes_a_folder_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = {**row(TABLE, rate=10), "rejected": row([[1, 1, 1], [2, 2, 2]], rate=10)["chosen"]}
    source = str(rows(tmp_path, good))
    assert main([source, str(tmp_path / "made"), "--bins", "8"]) == 0
    assert "2 actions of 3 dimensions at 10 Hz" in capsys.readouterr().out
    assert ActionSpace.load(tmp_path / "made").bins == 8
    assert not (tmp_path / "made" / "expert.json").exists()
    assert main([source, str(tmp_path / "made"), "--expert", "--width", "16", "--depth", "1"]) == 0
    assert (tmp_path / "made" / "model.safetensors").is_file()
    bad = str(rows(tmp_path, row([[1.0], [2.0, 3.0]])))
    assert main([bad, str(tmp_path / "other")]) == DataError.exit_code
    said = capsys.readouterr().err
    assert "rows.jsonl:1 field=chosen[0].content[0].action[1]" in said


def test_a_folder_that_says_nothing_is_told(tmp_path: Path):
    with pytest.raises(CheckpointError, match="python -m modalign_action ROWS FOLDER"):
        ActionSpace.load(tmp_path)
    (tmp_path / "action.json").write_text('{"steps": 1, "low": [1], "high": [0]}')
    with pytest.raises(CheckpointError, match="low must be below high"):
        ActionSpace.load(tmp_path)
