"""Predictions in a run folder: what is written is what is read, and what is no file of them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modalign.errors import CheckpointError
from modalign.objectives.base import Predictions
from modalign.training.storage.predictions import NAME, keep, kept


def some(kind: str = "label", count: int = 5, seed: int = 0) -> Predictions:
    made = torch.Generator().manual_seed(seed)
    predicted = torch.rand(count, generator=made, dtype=torch.float64)
    return Predictions(kind=kind, predicted=predicted, said=predicted.round())  # type: ignore[arg-type]


def test_predictions_come_back_to_the_last_bit_and_in_their_order(tmp_path: Path) -> None:
    given = {
        "z/with a slash": some("label", 3, 0),
        "a": some("preference", 4, 1),
        "ünï <b>": some("number", 0, 2),
    }
    assert keep(tmp_path, given, step=12) == tmp_path / NAME
    found = kept(tmp_path)
    assert found is not None
    assert found.step == 12
    assert list(found.by_name) == list(given)
    for name, one in given.items():
        assert found.by_name[name].kind == one.kind
        assert torch.equal(found.by_name[name].predicted, one.predicted)
        assert torch.equal(found.by_name[name].said, one.said)


def test_more_than_ten_names_keep_their_order(tmp_path: Path) -> None:
    given = {f"label {number}": some(seed=number) for number in reversed(range(13))}
    keep(tmp_path, given, step=1)
    found = kept(tmp_path)
    assert found is not None
    assert list(found.by_name) == list(given)


def test_a_later_evaluation_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    keep(tmp_path, {"a": some(), "b": some()}, step=1)
    keep(tmp_path, {"a": some(count=2)}, step=2)
    found = kept(tmp_path)
    assert found is not None
    assert (found.step, list(found.by_name), len(found.by_name["a"].said)) == (2, ["a"], 2)
    assert [one.name for one in tmp_path.iterdir()] == [NAME]


def test_an_objective_that_predicts_nothing_leaves_nothing(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    keep(tmp_path, {"a": some()}, step=1)
    assert keep(tmp_path, {}, step=2) is None
    assert kept(tmp_path) is None


_STEP = {"step": torch.tensor([3])}
_GOOD = {"000000/label/predicted/a": torch.zeros(2), "000000/label/said/a": torch.ones(2)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (_GOOD, "no step"),
        (_STEP | {"weight": torch.zeros(2)}, "an entry"),
        (_STEP | {"000000/guess/said/a": torch.zeros(2)}, "an entry"),
        (_STEP | {"000000/label/said/a": torch.zeros(2, 2)}, r"an entry .* of shape \(2, 2\)"),
        (_STEP | {"000000/label/said/a": torch.zeros(2)}, "predictions of .* do not match"),
        (_STEP | _GOOD | {"000000/label/said/a": torch.zeros(3)}, "predictions of .* do not match"),
        (
            _STEP | _GOOD | {name.replace("000000", "000001"): one.clone() for name, one in _GOOD.items()},
            "do not match",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], says: str) -> None:
    save_file(tensors, tmp_path / NAME)
    with pytest.raises(CheckpointError, match=rf"no file of predictions; found: .*{says}"):
        kept(tmp_path)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="safetensors"):
        kept(tmp_path)
