"""Weights that ship: half as large, the same names and metadata, and whole again where they are used."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modalign.world.packed import pack, unpack


def test_weights_come_back_rounded_to_half_and_everything_else_as_it_was(tmp_path: Path) -> None:
    held = {"weight": torch.randn(8, 4), "number": torch.tensor([70000])}
    (tmp_path / "made" / "part").mkdir(parents=True)
    save_file(held, tmp_path / "made" / "part" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "made" / "said.json").write_text("{}")
    packed = pack(tmp_path / "made", tmp_path / "packed")
    assert load_file(packed / "part" / "model.safetensors")["weight"].dtype == torch.float16
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "mine.txt").write_text("kept")
    whole = unpack(packed, tmp_path / "whole")
    found = load_file(whole / "part" / "model.safetensors")
    assert torch.equal(found["weight"], held["weight"].half().float())
    assert torch.equal(found["number"], held["number"])
    assert {one.name for one in whole.rglob("*") if one.is_file()} == {"model.safetensors", "said.json", "mine.txt"}
    with safe_open(whole / "part" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
