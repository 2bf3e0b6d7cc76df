"""Killed, out of space, damaged: earlier checkpoints stay whole at every place of a save, and damage always shows."""

import errno
import hashlib
import logging
import os
import random
import resource
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from modalign import failpoints
from modalign.errors import CheckpointError, ResourceError
from modalign.testing.processes import in_child
from modalign.training.storage import durable, tensorfile
from modalign.training.storage.checkpoint import latest, load_checkpoint, save_checkpoint, sweep, verify
from modalign.training.storage.state import TrainState


def state(step: int) -> TrainState:
    generator = torch.Generator().manual_seed(step)
    tensors = {"weight": torch.randn(40, generator=generator), "moment": torch.randn(40, generator=generator).double()}
    rng = {"torch": torch.randint(0, 256, (64,), generator=generator, dtype=torch.uint8)}
    return TrainState(step=step, position=step, tensors=tensors, rng=rng, data={"epoch": 0.5})


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """Checkpoints of steps 1 and 2, to copy."""
    folder = tmp_path_factory.mktemp("template") / "checkpoints"
    save_checkpoint(folder, state(1))
    save_checkpoint(folder, state(2))
    return folder


@pytest.fixture
def checkpoints(template, tmp_path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "checkpoints"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def whole(folder: Path) -> set[int]:
    """Steps of the checkpoints that verify."""
    found = set()
    for path in folder.glob("checkpoint-*"):
        try:
            found.add(verify(path).step)
        except CheckpointError:
            continue
    return found


def places_of_a_save(template: Path, scratch: Path) -> list[tuple[str, int]]:
    """Every place that saving step 3 passes, with how often it was passed before, from 1."""
    copy = Path(shutil.copytree(template, scratch / "trace"))
    with failpoints.traced() as names:
        save_checkpoint(copy, state(3))
    seen: Counter[str] = Counter()
    places = []
    for name in names:
        seen[name] += 1
        places.append((name, seen[name]))
    return places


def test_a_save_killed_at_any_place_leaves_two_whole_checkpoints_and_nothing_half_chosen(template, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    places = places_of_a_save(template, tmp_path)
    # 4 files of >= 4 places each, 2 folders made, 3 folders flushed, 7 places of the commit and the purge
    assert len(places) >= 28
    committed = places.index(("checkpoint-committed", 1))
    before = contents(template)
    for number, (name, at) in enumerate(places):
        folder = Path(shutil.copytree(template, tmp_path / f"at-{number}"))

        def victim(folder=folder, name=name, at=at):
            with failpoints.active(f"{name}=kill@{at}"):
                save_checkpoint(folder, state(3))

        assert in_child(victim) == -9, f"the failpoint {name}@{at} did not fire"
        newest = 3 if number >= committed else 2
        assert latest(folder) == folder / f"checkpoint-{newest}", (name, at)
        assert len(whole(folder)) >= 2, (name, at)
        assert contents(folder / "checkpoint-2") == contents(template / "checkpoint-2"), (name, at)
        sweep(folder)
        assert all(path.name.startswith("checkpoint-") for path in folder.iterdir()), (name, at)
        assert whole(folder) == {int(path.name.split("-")[1]) for path in folder.iterdir()}, (name, at)
        if number % 5 == 0:  # and the run goes on
            save_checkpoint(folder, state(3))
            assert whole(folder) == {2, 3}
        shutil.rmtree(folder)
    assert contents(template) == before


def test_a_save_killed_while_it_replaces_a_broken_checkpoint_keeps_the_others(checkpoints):
    (checkpoints / "checkpoint-2" / "state.json").write_bytes(b"")
    save_checkpoint(checkpoints, state(3))

    def victim():
        with failpoints.active("checkpoint-commit=kill"):
            save_checkpoint(checkpoints, state(2))

    assert in_child(victim) == -9
    assert whole(checkpoints) == {1, 3}


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
def test_a_disk_that_refuses_at_any_place_before_the_commit_leaves_everything_as_it_was(template, tmp_path, code):
    places = places_of_a_save(template, tmp_path)
    before = contents(template)
    folder = Path(shutil.copytree(template, tmp_path / "checkpoints"))
    commit = places.index(("checkpoint-committed", 1))
    for name, at in places[:commit]:
        with failpoints.active(f"{name}=raise:{code}@{at}"):
            with pytest.raises(ResourceError) as caught:
                save_checkpoint(folder, state(3))
            assert failpoints.fired()[name] == 1
        assert os.strerror(getattr(errno, code)) in str(caught.value)
        assert "bytes needed" in str(caught.value)
        assert "bytes free" in str(caught.value)
        assert str(folder) in str(caught.value)
        assert contents(folder) == before, (name, at)
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_a_disk_that_refuses_after_the_commit_loses_neither_the_new_nor_the_old(template, tmp_path):
    places = places_of_a_save(template, tmp_path)
    for name, at in places[places.index(("checkpoint-committed", 1)) :]:
        folder = Path(shutil.copytree(template, tmp_path / "checkpoints"))
        with failpoints.active(f"{name}=raise:ENOSPC@{at}"), pytest.raises(ResourceError):
            save_checkpoint(folder, state(3))
        assert {2, 3} <= whole(folder)
        shutil.rmtree(folder)


def test_a_file_size_limit_at_any_byte_leaves_everything_as_it_was(template, tmp_path):
    folder = Path(shutil.copytree(template, tmp_path / "checkpoints"))
    before = contents(folder)
    largest = max(len(data) for data in contents(folder / "checkpoint-2").values())

    def victim():
        for limit in (0, 1, 8, 9, largest // 3, largest // 2, largest - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with pytest.raises(ResourceError, match=os.strerror(errno.EFBIG)):
                save_checkpoint(folder, state(3))
            assert contents(folder) == before, limit

    assert in_child(victim) == 0


def test_a_save_that_cannot_fit_is_refused_before_it_writes(checkpoints, monkeypatch):
    monkeypatch.setattr(durable, "free_bytes", lambda path: 12_345)
    with failpoints.traced() as names, pytest.raises(ResourceError, match="12345 bytes free") as caught:
        save_checkpoint(checkpoints, state(3))
    assert "file-open" not in names
    assert caught.value.exit_code == 6
    assert whole(checkpoints) == {1, 2}


def damage(chance: random.Random, folder: Path, other: Path) -> tuple[str, Path]:
    """Do one thing to a checkpoint; returns in words what it was, and the file it was done to."""
    file = chance.choice(sorted(folder.iterdir()))
    data = bytearray(file.read_bytes())
    kind = chance.choice(["truncate", "flip", "delete", "swap", "zero", "append", "exchange"])
    match kind:
        case "truncate":
            file.write_bytes(data[: chance.randrange(len(data))])
        case "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            file.write_bytes(data)
        case "delete":
            file.unlink()
        case "swap":  # for the same file of another checkpoint
            file.write_bytes((other / file.name).read_bytes())
        case "zero":
            start = chance.randrange(len(data))
            file.write_bytes(data[:start] + bytes(len(data) - start))
        case "append":
            file.write_bytes(data + b"\0")
        case _:  # for another file of the same checkpoint
            twin = chance.choice([one for one in sorted(folder.iterdir()) if one != file])
            file.write_bytes(twin.read_bytes())
            twin.write_bytes(data)
    return kind, file


def test_three_hundred_mutations_are_all_detected_and_the_file_is_named(template, tmp_path):
    chance = random.Random(20261121)
    original = contents(template / "checkpoint-2")
    folder = tmp_path / "checkpoint-2"
    tried: Counter[str] = Counter()
    for _ in range(300):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template / "checkpoint-2", folder)
        kind, file = damage(chance, folder, template / "checkpoint-1")
        if contents(folder) == original:  # zeros over zeros
            continue
        tried[kind] += 1
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(folder)
        where = str(caught.value)
        assert str(folder) in where
        if kind == "exchange" or file.name == "manifest.json":
            assert any(name in where for name in (*original, "another name")), (kind, where)
        else:
            assert file.name in where, (kind, where)
        assert caught.value.exit_code == 5
    assert sum(tried.values()) >= 295
    assert set(tried) == {"truncate", "flip", "delete", "swap", "zero", "append", "exchange"}


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
def test_no_bit_changes_unnoticed(template, tmp_path, name):
    folder = Path(shutil.copytree(template / "checkpoint-2", tmp_path / "checkpoint-2"))
    data = (folder / name).read_bytes()
    for bit in range(0, 8 * len(data), 29):  # 29 is prime: every place in a byte occurs
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(changed)
        with pytest.raises(CheckpointError):
            verify(folder)
    (folder / name).write_bytes(data)
    verify(folder)


def test_the_digests_are_given_expected_and_got(checkpoints):
    file = checkpoints / "checkpoint-2" / "state.json"
    expected = verify(file.parent).files["state.json"]
    file.write_bytes(b"x" * expected.size)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(file.parent)
    assert hashlib.sha256(b"x" * expected.size).hexdigest() in str(caught.value)
    assert expected.sha256 in str(caught.value)


def test_a_file_changed_between_check_and_reading_is_noticed(checkpoints, monkeypatch):
    read = tensorfile.read

    def swapping(path):
        found = read(path)
        shutil.copy(checkpoints / "checkpoint-1" / path.name, path)
        return found

    monkeypatch.setattr(tensorfile, "read", swapping)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load_checkpoint(checkpoints / "checkpoint-2")


@pytest.mark.parametrize("trick", ["pipe", "link", "folder"])
def test_a_file_that_is_no_plain_file_is_refused_at_once(checkpoints, trick):
    file = checkpoints / "checkpoint-2" / "state.json"
    file.rename(checkpoints / "real")
    match trick:
        case "pipe":
            os.mkfifo(file)
        case "link":
            file.symlink_to(checkpoints / "real")
        case _:
            file.mkdir()
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_checkpoint(file.parent)
