"""Chunks of actions in rows: what is read, saved and shown, and what is wrong with one, to the number."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cases import TABLE, row, rows
from modalign.content import Part
from modalign.data import read
from modalign.data.convert import convert
from modalign.errors import DataError
from modalign.registry import registry
from modalign_action.config import ActionSettings
from modalign_action.modality import ActionModality


def decoded(part: Part, **settings: object) -> torch.Tensor:
    return ActionModality().decode(part, ActionSettings.model_validate(settings)).tensor


def chosen(file: Path) -> Part:
    (part,) = read(str(file))[0].responses[0].parts()
    return part


# --- what is read -------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, Path]:
    """The same chunk in every kind of file."""
    array = np.array(TABLE)
    np.save(folder / "a.npy", array)
    np.save(folder / "whole.npy", np.array([[0, 1, 2], [3, 4, 5]]))
    save_file({"action": torch.tensor(TABLE), "other": torch.zeros(1)}, folder / "a.safetensors")
    (folder / "a.json").write_text(json.dumps(TABLE))
    (folder / "b.json").write_text(json.dumps({"action": TABLE, "rate": 10}))
    return {one.name: one for one in folder.iterdir()}


def test_every_kind_of_file_holds_the_same(tmp_path: Path):
    for name in files(tmp_path):
        part = chosen(rows(tmp_path, row(name)))
        wanted = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] if name == "whole.npy" else TABLE
        assert torch.equal(decoded(part), torch.tensor(wanted))
    inside = ActionModality().read({"type": "action", "action": (tmp_path / "a.npy").read_bytes()}, root=None)
    assert torch.equal(decoded(inside), torch.tensor(TABLE))
    stored = {"bytes": None, "path": "a.json"}
    assert torch.equal(decoded(chosen(rows(tmp_path, row(stored)))), torch.tensor(TABLE))


def test_a_rate_is_said_by_the_block_or_the_file(tmp_path: Path):
    files(tmp_path)
    settings = ActionSettings()
    for value, facts in ((TABLE, {"rate": 10}), ("b.json", {}), ("b.json", {"rate": 10.0})):
        content = ActionModality().decode(chosen(rows(tmp_path, row(value, **facts))), settings)
        assert (content.rate, content.seconds) == (10.0, 0.2)
    assert ActionModality().decode(chosen(rows(tmp_path, row(TABLE))), settings).rate is None
    with pytest.raises(DataError, match="two rates for one chunk"):
        chosen(rows(tmp_path, row("b.json", rate=20)))
    with pytest.raises(DataError, match="actions of another rate") as caught:
        ActionModality().decode(chosen(rows(tmp_path, row(TABLE, rate=20))), settings, rate=10.0)
    assert caught.value.got == "20 Hz, and a model of 10 Hz"


def test_a_column_fills_blocks(tmp_path: Path):
    say = lambda role, *content: [{"role": role, "content": list(content)}]
    found = {
        "prompt": say("user", {"type": "text", "text": "Go"}),
        "completion": say("assistant", {"type": "action"}),
        "actions": [TABLE],
    }
    (part,) = read(str(rows(tmp_path, found)))[0].responses[0].parts()
    assert torch.equal(decoded(part), torch.tensor(TABLE))


def test_what_is_saved_is_read_again(tmp_path: Path):
    one = ActionModality()
    part = one.read({"type": "action", "action": TABLE, "rate": 10}, root=None)
    file = one.save(part, tmp_path / "saved")
    again = one.read({"type": "action", "action": file.name}, root=tmp_path)
    content = one.decode(again, ActionSettings())
    assert torch.equal(content.tensor, torch.tensor(TABLE))
    assert content.rate == 10


@pytest.mark.parametrize("target", ["rows.parquet", "folder"])
def test_rows_are_converted_with_their_actions(target: str, tmp_path: Path):
    files(tmp_path)
    source = rows(tmp_path, row(TABLE, rate=10), row("a.npy", rate=5), row("b.json"))
    before = [decoded(one.responses[0].messages[0].parts[0]) for one in read(str(source))]
    convert(read(str(source)), tmp_path / target)
    after = [one.responses[0].messages[0].parts[0] for one in read(str(tmp_path / target))]
    assert all(torch.equal(one, decoded(other)) for one, other in zip(before, after, strict=True))
    rates = [ActionModality().decode(one, ActionSettings()).rate for one in after]
    assert rates == [10, 5, 10]


def test_it_is_shown_as_curves():
    html = registry.modality("action").show(Part(modality="action", value=torch.rand(2000, 7), facts={"rate": 50.0}))
    assert html.count("<polyline") == 7
    assert "2000 actions of 7 dimensions in 40 s" in html
    assert len(html) < 60_000  # a long chunk is thinned
    assert "nan" not in registry.modality("action").show(Part(modality="action", value=torch.ones(1, 1)))


# --- what is wrong ------------------------------------------------------------------------------------------------

BAD = {
    "ragged": ([[0.0, 1.0], [0.0]], "equally many dimensions", "action[1]"),
    "null": ([[0.0, None]], "expected a number", "action[0][1]"),
    "infinite": ([[0.0, 1e300]], "finite number", "action[0][1]"),
    "a word": ([[0.0, "up"]], "expected a number", "action[0][1]"),
    "true": ([[True, 0.0]], "expected a number", "action[0][0]"),
    "a flat list": ([0.0, 1.0], "expected the numbers of one step", "action[0]"),
    "empty": ([], "expected a chunk of actions", "action"),
    "empty steps": ([[], []], "expected a chunk of actions", "action"),
    "no file": ("missing.npy", "no such file", ""),
    "outside": ("../outside.npy", "may not leave the data root", ""),
    "a number": (3.5, "expected a chunk of actions", "action"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_actions_are_said_with_file_row_and_field(bad: str, tmp_path: Path):
    value, what, field = BAD[bad]
    file = rows(tmp_path, row(TABLE), row(value))
    with pytest.raises(DataError, match=what) as caught:
        list(read(str(file)))
    assert Path(str(caught.value.file)).name == "rows.jsonl"
    assert caught.value.row == 2
    assert str(caught.value.field) == "chosen[0].content[0]" + (f".{field}" if field else "")


@pytest.mark.parametrize("kind", [lambda one: one, np.array, torch.tensor])
def test_numbers_in_memory_that_are_not_finite_are_said(kind: Callable[[object], object]):
    for wrong in (float("nan"), float("-inf")):
        with pytest.raises(DataError, match="finite number") as caught:
            ActionModality().read({"type": "action", "action": kind([[0.0, 1.0], [wrong, 1.0]])}, root=None)
        assert caught.value.field == "action[1][0]"


def broken(folder: Path) -> dict[str, str]:
    """Files that hold no actions, and what is said of each."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    (folder / "bomb.npy").write_bytes(header.getvalue() + b"12345678")
    np.save(folder / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "words.npy", np.array([["up"]]))
    np.save(folder / "cube.npy", np.zeros((2, 2, 2)))
    np.save(folder / "nan.npy", np.array([[0.0, 1.0], [np.nan, 1.0]]))
    (folder / "cut.npy").write_bytes((folder / "cube.npy").read_bytes()[:-8])
    save_file({"a": torch.zeros(1, 1), "b": torch.zeros(1, 1)}, folder / "two.safetensors")
    (folder / "cut.safetensors").write_bytes(struct.pack("<Q", 64) + b"{}")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "other.json").write_text('{"action": [[1]], "hz": 3}')
    (folder / "noise.bin").write_bytes(bytes(range(256)))
    return {
        "bomb.npy": "npy file cannot be read",
        "pickle.npy": "npy file cannot be read",
        "words.npy": "expected a number",
        "cube.npy": "expected a chunk of actions",
        "nan.npy": "finite number",
        "cut.npy": "npy file cannot be read",
        "two.safetensors": "which of these tensors",
        "cut.safetensors": "safetensors file cannot be read",
        "deep.json": "is .npy, .safetensors or .json",
        "other.json": "field that nothing reads",
        "noise.bin": "is .npy, .safetensors or .json",
    }


def test_broken_files_are_said_by_name(tmp_path: Path):
    for name, what in broken(tmp_path).items():
        with pytest.raises(DataError, match=what) as caught:
            list(read(str(rows(tmp_path, row(name)))))
        assert name in str(caught.value)
        assert str(caught.value.field).startswith("chosen[0].content[0].action")
    with pytest.raises(DataError) as caught:
        list(read(str(rows(tmp_path, row("nan.npy")))))
    assert caught.value.field == "chosen[0].content[0].action[1][0]"


def test_a_rate_that_is_none_is_said(tmp_path: Path):
    for rate, what in ((0, "above 0 Hz"), (-5, "above 0 Hz"), ("fast", "expected a number")):
        with pytest.raises(DataError, match=what) as caught:
            list(read(str(rows(tmp_path, row(TABLE, rate=rate)))))
        assert caught.value.field == "chosen[0].content[0].rate"
    with pytest.raises(DataError, match="field that nothing reads") as caught:
        list(read(str(rows(tmp_path, row(TABLE, hertz=10)))))
    assert caught.value.field == "chosen[0].content[0].hertz"


def test_settings_say_what_must_hold():
    part = ActionModality().read({"type": "action", "action": TABLE}, root=None)
    decoded(part, steps=2, dimensions=3, low=(0, -0.5, 1), high=(0.25, 0.5, 1.5))
    for settings, what, field in (
        ({"steps": 3}, "expected 3 steps", "action"),
        ({"dimensions": 7}, "expected 7 dimensions", "action"),
        ({"low": (0, 0)}, "expected 2 dimensions", "action"),
        ({"low": (0, -0.4, 1)}, "at least -0.4", "action[1][1]"),
        ({"high": (0.2, 1, 1)}, "at most 0.2", "action[1][0]"),
        ({"max_values": 5}, "too many numbers", "action"),
    ):
        with pytest.raises(DataError, match=what) as caught:
            decoded(part, **settings)
        assert caught.value.field == field
    for settings in ({"low": (0, 0), "dimensions": 3}, {"low": (1,), "high": (0,)}, {"low": (float("nan"),)}):
        with pytest.raises(ValueError, match=r"dimensions|below|numbers"):
            ActionSettings.model_validate(settings)
