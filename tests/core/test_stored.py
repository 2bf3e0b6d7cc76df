"""Modules as folders: what they were made with comes back, and what cannot be saved is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.roles import Encoder
from modalign.stored import holds, restore, store
from modalign.testing.doubles import ToyEncoder


class Kept(nn.Module):
    def __init__(self, width: int, *, names: list[str] | None = None) -> None:
        super().__init__()
        self.width, self.names = width, names
        self.project = nn.Linear(width, 2)


class Forgets(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2)


class Wraps(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_a_module_comes_back_as_it_was_made(tmp_path: Path) -> None:
    one = Kept(3, names=["a"])
    again = restore(Kept, store(one, tmp_path / "one"))
    assert (again.width, again.names) == (3, ["a"])
    assert torch.equal(again.project.weight, one.project.weight)
    assert holds(Kept, tmp_path / "one")
    assert not holds(Forgets, tmp_path / "one")
    assert not holds(Kept, tmp_path)


def test_an_encoder_is_saved_and_loaded_without_a_word_of_its_own(tmp_path: Path) -> None:
    one: Encoder = ToyEncoder(width=8)
    one.save(tmp_path / "toy")
    again = ToyEncoder.load(str(tmp_path / "toy"), dtype=torch.float64)
    assert again.width == 8
    assert again.project.weight.dtype == torch.float64
    assert torch.equal(again.project.weight.float(), one.project.weight)
    with pytest.raises(ConfigError, match="ToyEncoder has no further settings; found: size"):
        ToyEncoder.load(str(tmp_path / "toy"), size=3)


@pytest.mark.parametrize(
    ("module", "says"),
    [(Forgets(2), r"without: width; to mend: set self\.width = width"), (Wraps(nn.Linear(1, 1)), "not JSON: inner")],
)
def test_what_does_not_keep_what_it_was_made_with_is_not_saved(module: nn.Module, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        store(module, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_something_else_or_a_broken_one_is_said(tmp_path: Path) -> None:
    place = store(Kept(3), tmp_path / "one")
    with pytest.raises(ModelError, match="holds no Forgets; found: Kept"):
        restore(Forgets, place)
    with pytest.raises(ModelError, match=r"holds no Kept; found: no config\.json"):
        restore(Kept, tmp_path)
    said = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**said, "settings": {"wide": 3}}))
    with pytest.raises(CheckpointError, match=r"cannot be made with these settings; found: .*'wide'"):
        restore(Kept, place)
    (place / "config.json").write_text(json.dumps({**said, "settings": {"width": 4}}))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: these weights cannot be read; found: .*size mismatch"
    ):
        restore(Kept, place)
    (place / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="this file is no JSON"):
        restore(Kept, place)
