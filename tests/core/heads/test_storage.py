"""Heads in files: what is written, what an older version wrote, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modalign.errors import CheckpointError
from modalign.heads import CosineHead, GaussianHead, LabelHead, LinearHead, OrdinalHead
from modalign.heads.storage import load_heads, save_heads
from modalign.testing.doubles import ToyHead


def heads() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "reward": LinearHead(8, dimensions=("a", "b"), bias=True, read="mean"),
            "sure": GaussianHead(8),
            "labels": LabelHead(8, dimensions=("x", "y"), read=7),
            "near": CosineHead(8, projection=3),
            "rates": OrdinalHead(8, cuts=(-1.0, 2.0)),
        }
    )


def test_heads_load_again_as_they_were(tmp_path: Path) -> None:
    before = heads()
    save_heads(before, tmp_path)
    after = load_heads(tmp_path, 8)
    assert {path.name for path in tmp_path.iterdir()} == {"modalign.json", "heads.safetensors"}
    assert list(after) == list(before)
    for name, head in after.items():
        old = before[name]
        assert type(head) is type(old)
        assert head.settings == old.settings
        assert head.dimensions == old.dimensions
        assert all(value.equal(old.state_dict()[key]) for key, value in head.state_dict().items())


def test_a_manifest_that_says_dimensions_only_is_read(tmp_path: Path) -> None:
    head = LinearHead(8, dimensions=("a", "b"))
    save_file({"reward.score.weight": head.score.weight.detach()}, tmp_path / "heads.safetensors")
    said = {"modalign": "0.1.0", "heads": {"reward": {"type": "linear", "dimensions": ["a", "b"]}}}
    (tmp_path / "modalign.json").write_text(json.dumps(said), encoding="utf-8")
    found = load_heads(tmp_path, 8)["reward"]
    assert found.dimensions == ("a", "b")
    assert found.state_dict()["score.weight"].equal(head.score.weight)


def test_a_folder_without_a_manifest_has_no_heads(tmp_path: Path) -> None:
    assert load_heads(tmp_path, 8) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"dimensions": ["c"]}, "dimensions c, but its settings make a, b"),
        ({"settings": {"dimensions": ["a", "b"], "colour": 1}}, "colour"),
        ({"settings": {"dimensions": ["a", "b"], "read": "median"}}, "median"),
        ({"type": "nobody"}, "no head 'nobody'"),
        ({"settings": {"dimensions": ["a", "b"]}}, "score.bias"),
    ],
)
def test_what_was_changed_by_hand_is_an_error_that_names_the_folder(
    change: dict[str, object], found: str, tmp_path: Path
) -> None:
    save_heads(heads(), tmp_path)
    manifest = json.loads((tmp_path / "modalign.json").read_text(encoding="utf-8"))
    manifest["heads"]["reward"] |= change
    (tmp_path / "modalign.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match="reward heads of this checkpoint cannot be read") as raised:
        load_heads(tmp_path, 8)
    assert str(tmp_path) in str(raised.value)
    assert found in str(raised.value)


def test_a_head_of_another_width_is_an_error(tmp_path: Path) -> None:
    save_heads(heads(), tmp_path)
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_heads(tmp_path, 16)


def test_a_head_that_nobody_registers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no plugin registers; found: ToyHead"):
        save_heads(nn.ModuleDict({"reward": ToyHead()}), tmp_path)


def test_weights_do_not_change_when_they_are_saved(tmp_path: Path) -> None:
    made = heads()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    save_heads(made, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
