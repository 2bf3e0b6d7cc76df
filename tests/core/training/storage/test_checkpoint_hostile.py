"""Pickles and their like, under any name: refused by content, and nothing in them ever runs."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.errors import CheckpointError
from modalign.training.storage.checkpoint import latest, load_checkpoint, save_checkpoint, verify
from modalign.training.storage.durable import Written
from modalign.training.storage.foreign import kind_of
from modalign.training.storage.manifest import Manifest
from modalign.training.storage.state import TrainState

# What this file makes is what an attacker would; the code under test must never do any of it.


class Payload:
    """A pickle of this makes a file when something reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def torch_legacy(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def torch_zip(payload: Payload) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def numpy_object(payload: Payload) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


def tar(payload: Payload) -> bytes:
    file = io.BytesIO()
    data = pickle.dumps(payload)
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("../../data.pkl")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def zipped(payload: Payload) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../data.pkl", pickle.dumps(payload))
    return file.getvalue()


MAKERS = {f"pickle protocol {number}": (lambda payload, n=number: pickle.dumps(payload, n)) for number in range(6)} | {
    "old torch": torch_legacy,
    "torch": torch_zip,
    "numpy object": numpy_object,
    "tar": tar,
    "zip": zipped,
    "gzip": lambda payload: gzip.compress(pickle.dumps(payload)),
}


def sized(header: bytes) -> bytes:
    """A safetensors header with its length before it."""
    return len(header).to_bytes(8, "little") + header


NAMES = ["model.pt", "pytorch_model.bin", "last.ckpt", "model.safetensors", "state", ".metadata"]


@pytest.fixture
def payload(tmp_path):
    payload = Payload(tmp_path / "marker")
    yield payload
    assert not payload.marker.exists(), "the payload ran"


def test_the_payload_would_run_if_anything_read_it(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_hostile_file_is_refused_by_its_content_with_the_way_to_convert_it(tmp_path, payload, maker, name):
    file = tmp_path / name
    file.write_bytes(MAKERS[maker](payload))
    for read in (load_checkpoint, verify):
        with pytest.raises(CheckpointError, match=r"pickle|archive|numpy") as caught:
            read(file)
        assert caught.value.exit_code == 5
        assert "convert its weights to safetensors" in str(caught.value)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_folder_of_another_trainer_is_refused_naming_the_file(tmp_path, payload, maker):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(MAKERS[maker](payload))
    with pytest.raises(CheckpointError, match=r"optimizer\.pt is a") as caught:
        load_checkpoint(folder)
    assert "convert its weights" in str(caught.value)
    assert latest(tmp_path) is None


@pytest.mark.parametrize("victim", ["tensors.safetensors", "rng.safetensors", "state.json"])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_hostile_file_inside_a_checkpoint_is_refused_even_with_the_right_digest(tmp_path, payload, maker, victim):
    whole = save_checkpoint(tmp_path, TrainState(step=1, position=1, tensors={"w": torch.ones(2)}))
    data = MAKERS[maker](payload)
    manifest = verify(whole)
    (whole / victim).write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(whole)
    files = dict(manifest.files) | {victim: Written(size=len(data), sha256=hashlib.sha256(data).hexdigest())}
    sealed = Manifest(step=1, world_size=1, digests={}, files=files)
    (whole / "manifest.json").write_bytes(sealed.dumps())
    with pytest.raises(CheckpointError, match=victim) as caught:
        load_checkpoint(whole)
    if victim.endswith(".safetensors"):  # known for what it is, before the parser of safetensors sees it
        assert any(kind in str(caught.value.got) for kind in ("pickle", "archive", "numpy"))


def test_a_hostile_file_beside_a_checkpoint_is_never_opened(tmp_path, payload):
    whole = save_checkpoint(tmp_path, TrainState(step=1, position=1, tensors={"w": torch.ones(2)}))
    (whole / "optimizer.pt").write_bytes(torch_zip(payload))
    (whole / "optimizer.pt").chmod(0)
    assert load_checkpoint(whole).step == 1


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,  # a header of 2**64 bytes
        (1 << 40).to_bytes(8, "little") + b"{}",
        sized(b"{}") + b"tail",
        sized(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,1000000]}}'),
        sized(b'{"w":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}') + bytes(4),
        sized(b'{"w":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}}') + bytes(4),
        sized(b'{"w":{"dtype":"PKL","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
        b"",
    ],
)
def test_a_safetensors_file_that_lies_is_refused(tmp_path, header):
    whole = save_checkpoint(tmp_path, TrainState(step=1, position=1, tensors={"w": torch.ones(2)}))
    manifest = verify(whole)
    (whole / "tensors.safetensors").write_bytes(header)
    lied = Written(size=len(header), sha256=hashlib.sha256(header).hexdigest())
    files = dict(manifest.files) | {"tensors.safetensors": lied}
    (whole / "manifest.json").write_bytes(Manifest(step=1, world_size=1, digests={}, files=files).dumps())
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors"):
        load_checkpoint(whole)


@pytest.mark.parametrize("what", ["nothing", "words", "empty folder", "model folder"])
def test_a_path_that_is_no_checkpoint_is_refused_with_the_way_out(tmp_path, what):
    path = tmp_path / "checkpoint-9"
    match what:
        case "words":
            path.write_text("License: none. (I think)\nSo be it.\n")
        case "empty folder":
            path.mkdir()
        case "model folder":
            whole = save_checkpoint(tmp_path, TrainState(step=1, position=1, tensors={"w": torch.ones(2)}))
            path.mkdir()
            shutil.copy(whole / "tensors.safetensors", path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.fix
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [b"", b"{}", b"License", b"Version 1\n", b"(I think\nso)", b"\x10\0\0\0\0\0\0\0{}", b"step,loss\n", b"#!/bin/sh\n"],
)
def test_harmless_beginnings_are_not_called_pickles(head):
    assert kind_of(head) is None
