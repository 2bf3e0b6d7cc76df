"""What goes into a checkpoint comes out, bit for bit; which ones are kept; what is refused, and in which words."""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from modalign.errors import CheckpointError
from modalign.training.storage import checkpoint as checkpoints_module
from modalign.training.storage import tensorfile
from modalign.training.storage.checkpoint import (
    latest,
    load_checkpoint,
    save_checkpoint,
    set_aside_after,
    sweep,
    verify,
)
from modalign.training.storage.durable import write_file
from modalign.training.storage.state import TrainState


def state(step: int, **fields) -> TrainState:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.weight": torch.randn(5, 3, generator=generator),
        "optimizer.exp_avg.model.weight": torch.randn(5, 3, generator=generator, dtype=torch.float64),
        "optimizer.step": torch.tensor(float(step)),
    }
    rng = {"torch": torch.randint(0, 256, (64,), generator=generator, dtype=torch.uint8)}
    return TrainState(**({"step": step, "position": 4 * step, "tensors": tensors, "rng": rng} | fields))


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


ODD_TENSORS = {
    "nan payload": torch.tensor([0x7FC00001, -1], dtype=torch.int32).view(torch.float32),
    "infinite": torch.tensor([math.inf, -math.inf, -0.0, 0.0]),
    "bf16": torch.tensor([1.0, -0.0, math.nan, 3e38], dtype=torch.bfloat16),
    "half": torch.tensor([6e-8], dtype=torch.float16),
    "fp8": torch.tensor([0.5, 448.0]).to(torch.float8_e4m3fn),
    "int64": torch.tensor([2**63 - 1, -(2**63)]),
    "uint8": torch.arange(256, dtype=torch.uint8),
    "bool": torch.tensor([[True, False]]),
    "scalar": torch.tensor(1e-300, dtype=torch.float64),
    "empty": torch.zeros(0, 7),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    'a name with spaces, ünïcode and "quotes"': torch.tensor([1]),
}


def test_every_kind_of_tensor_survives_bit_for_bit(tmp_path):
    saved = save_checkpoint(tmp_path, state(1, tensors=ODD_TENSORS))
    loaded = load_checkpoint(saved).tensors
    assert set(loaded) == set(ODD_TENSORS)
    for name, tensor in ODD_TENSORS.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(loaded[name]) == bits(tensor), name


def test_the_tensor_file_is_ordinary_safetensors(tmp_path):
    write_file(tmp_path / "x.safetensors", tensorfile.pieces(ODD_TENSORS))
    assert (tmp_path / "x.safetensors").stat().st_size == tensorfile.size_of(ODD_TENSORS)
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert bits(tensor) == bits(ODD_TENSORS[name]), name


def test_the_rest_of_the_state_survives(tmp_path):
    data = {"scale": 65536.0, "best": -math.inf, "lists": [1, 2.5, "x", None, True], "big": 2**80, "zero": -0.0}
    before = state(7, data=data, world_size=2, digests={"config": "c0ffee"})
    after = load_checkpoint(save_checkpoint(tmp_path, before))
    assert (after.step, after.position, after.world_size) == (7, 28, 2)
    assert (after.data, after.digests) == (data, {"config": "c0ffee"})
    assert math.copysign(1, cast(float, after.data["zero"])) == -1
    assert_close(dict(after.rng), dict(before.rng), rtol=0, atol=0)


def test_nan_in_the_data_is_written_as_strict_json(tmp_path):
    saved = save_checkpoint(tmp_path, state(1, data={"x": math.nan}))
    json.loads((saved / "state.json").read_text(), parse_constant=pytest.fail)
    assert math.isnan(cast(float, load_checkpoint(saved).data["x"]))


def test_a_loaded_state_does_not_depend_on_its_file(tmp_path):
    saved = save_checkpoint(tmp_path, state(1))
    loaded = load_checkpoint(saved)
    for file in saved.iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    assert_close(dict(loaded.tensors), dict(state(1).tensors), rtol=0, atol=0)


def test_equal_states_make_equal_bytes(tmp_path):
    one, two = save_checkpoint(tmp_path / "a", state(3)), save_checkpoint(tmp_path / "b", state(3))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(1, dtype=torch.complex128)]
)
def test_a_tensor_the_format_cannot_hold_is_named(tmp_path, bad):
    with pytest.raises(CheckpointError, match="cannot store the tensor 'odd'"):
        save_checkpoint(tmp_path, state(1, tensors={"odd": bad}))
    assert steps(tmp_path) == []


@pytest.mark.parametrize("bad", [{"x": {1}}, {"x": b"bytes"}, {1: 2}, {"$float": "nan"}])
def test_data_that_is_no_json_is_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises((TypeError, ValueError)):
        save_checkpoint(tmp_path, state(1, data=bad))
    assert steps(tmp_path) == []


def test_files_and_folders_are_private(tmp_path):
    saved = save_checkpoint(tmp_path / "checkpoints", state(1))
    assert saved.stat().st_mode & 0o777 == saved.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in saved.iterdir()} == {0o600}


def test_the_newest_ones_are_kept(tmp_path):
    for step in (9, 10, 100, 11):  # by number, not by name or time
        save_checkpoint(tmp_path, state(step), keep=2)
    assert steps(tmp_path) == ["checkpoint-10", "checkpoint-100", "checkpoint-11"]
    assert latest(tmp_path) == tmp_path / "checkpoint-100"
    save_checkpoint(tmp_path, state(101), keep=3)
    assert steps(tmp_path) == ["checkpoint-100", "checkpoint-101", "checkpoint-11"]


def test_fewer_than_two_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        save_checkpoint(tmp_path, state(1), keep=1)


def test_a_broken_one_does_not_count_as_kept(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    (tmp_path / "checkpoint-2" / "state.json").unlink()
    save_checkpoint(tmp_path, state(3))
    assert steps(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]  # 1 and 3 are whole
    save_checkpoint(tmp_path, state(4))
    assert steps(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_the_older_one_stays_where_the_newer_does_not_verify(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))

    def broken(path):
        raise CheckpointError("the disk lies")

    monkeypatch.setattr(checkpoints_module, "verify", broken)
    with pytest.raises(CheckpointError, match="the disk lies"):
        save_checkpoint(tmp_path, state(3))
    assert steps(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_latest_passes_over_broken_ones_and_says_why(tmp_path, caplog):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step), keep=3)
    (tmp_path / "checkpoint-3" / "rng.safetensors").write_bytes(b"")
    shutil.rmtree(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2").mkdir()
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path) == tmp_path / "checkpoint-1"
    assert [record.args[0].where for record in caplog.records] == [
        str(tmp_path / "checkpoint-3" / "rng.safetensors"),
        str(tmp_path / "checkpoint-2"),
    ]
    assert latest(tmp_path / "nowhere") is None


def test_names_that_are_not_checkpoints_are_never_chosen(tmp_path):
    saved = save_checkpoint(tmp_path, state(5))
    for name in ("checkpoint-05", "checkpoint-5.old-1", "tmp-6-ab", "trash-4-ab", "checkpoint--1", "checkpoint-x"):
        shutil.copytree(saved, tmp_path / name)
    shutil.copytree(saved, tmp_path / "checkpoint-6")  # a whole one under another's name
    assert latest(tmp_path) == saved
    with pytest.raises(CheckpointError, match="name it checkpoint-5 again"):
        verify(tmp_path / "checkpoint-6")


def test_saving_the_same_step_again_changes_nothing(tmp_path):
    saved = save_checkpoint(tmp_path, state(5))
    inode = saved.stat().st_ino
    assert save_checkpoint(tmp_path, state(5)) == saved
    assert saved.stat().st_ino == inode
    assert steps(tmp_path) == ["checkpoint-5"]


def test_another_course_of_the_same_step_is_moved_aside_and_not_lost(tmp_path):
    save_checkpoint(tmp_path, state(5))
    save_checkpoint(tmp_path, state(5, position=99))
    assert load_checkpoint(tmp_path / "checkpoint-5").position == 99
    (tmp_path / "checkpoint-5").rename(tmp_path / "new")
    (tmp_path / "checkpoint-5.old-1").rename(tmp_path / "checkpoint-5")
    assert load_checkpoint(tmp_path / "checkpoint-5").position == 20


def test_going_back_sets_later_checkpoints_aside(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, state(step), keep=3)
    set_aside_after(tmp_path, 1)
    assert steps(tmp_path) == ["checkpoint-1", "checkpoint-2.old-1", "checkpoint-3.old-1"]
    assert latest(tmp_path) == tmp_path / "checkpoint-1"


def test_sweep_takes_what_is_half_done_and_nothing_else(tmp_path):
    saved = save_checkpoint(tmp_path, state(5))
    shutil.copytree(saved, tmp_path / "tmp-6-abc")
    shutil.copytree(saved, tmp_path / "trash-4-abc")
    (tmp_path / "tmp-config.yaml-abc").write_text("draft")
    assert len(sweep(tmp_path)) == 3
    assert steps(tmp_path) == ["checkpoint-5"]


def test_another_run_is_refused_naming_all_that_differs():
    saved = state(1, digests={"model": "a", "data": "b", "config": "c"})
    saved.refuse_other({"model": "a", "data": "b", "config": "c"})
    with pytest.raises(CheckpointError, match="differs in config, data"):
        saved.refuse_other({"model": "a", "data": "x"})
    saved.refuse_other({"model": "a", "data": "x"}, allow=("data", "config"))


@pytest.mark.parametrize("field", ["step", "position", "world_size"])
@pytest.mark.parametrize("value", [-1, 1.0, True, "1"])
def test_a_state_counts_in_integers(field, value):
    with pytest.raises(ValueError, match=field):
        TrainState(**({"step": 1, "position": 1, "tensors": {}} | {field: value}))
