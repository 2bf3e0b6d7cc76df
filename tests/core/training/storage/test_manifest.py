"""Manifests of other releases, and manifests that make no sense."""

import math
import random
from pathlib import Path
from typing import cast

import pytest
import torch

from modalign.errors import CheckpointError
from modalign.training.storage import manifest, strictjson
from modalign.training.storage.checkpoint import load_checkpoint, save_checkpoint, verify
from modalign.training.storage.state import JSON, TrainState

OLD_FORMATS = Path(__file__).parent / "formats"
STATE = TrainState(step=1, position=4, tensors={"weight": torch.ones(2)})


def edited(folder: Path, **changes) -> None:
    """Change a manifest and seal it anew, as another release would write it."""
    body = cast(dict[str, JSON], strictjson.loads((folder / manifest.NAME).read_bytes()))
    body.pop("sha256")
    (folder / manifest.NAME).write_bytes(manifest._seal(body | changes))


def test_a_newer_format_is_refused_with_the_release_that_reads_it(tmp_path):
    saved = save_checkpoint(tmp_path, STATE)
    edited(saved, version=2, written_by="3.1.0", needs="2.5.0", unheard_of=[])
    with pytest.raises(
        CheckpointError, match=r"written by modalign 3\.1\.0, which needs modalign >= 2\.5\.0"
    ) as caught:
        load_checkpoint(saved)
    assert caught.value.fix == "pip install 'modalign>=2.5.0'"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": None},
        {"version": "1"},
        {"version": True},
        {"format": "zip"},
        {"step": 1.0},
        {"step": -1},
        {"files": []},
        {"files": {}},
        {"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"tensors.safetensors": {"size": "1", "sha256": ""}}},
        {"digests": 3},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path, changes):
    saved = save_checkpoint(tmp_path, STATE)
    edited(saved, **changes)
    with pytest.raises(CheckpointError, match=r"damaged manifest; |another name"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"NaN", b"[" * 100_000, b"9" * 10_000, b"\xff", b" " * (1 << 21)]
)
def test_a_manifest_that_is_no_strict_json_is_refused(tmp_path, text):
    saved = save_checkpoint(tmp_path, STATE)
    (saved / manifest.NAME).write_bytes(text)
    with pytest.raises(CheckpointError, match="damaged manifest"):
        verify(saved)


def test_a_manifest_written_in_another_way_is_refused(tmp_path):
    saved = save_checkpoint(tmp_path, STATE)
    text = (saved / manifest.NAME).read_bytes()
    for other in (text + b"\n", text[:-1], text.replace(b",", b", ", 1)):
        (saved / manifest.NAME).write_bytes(other)
        with pytest.raises(CheckpointError, match="damaged manifest"):
            verify(saved)


def test_checkpoints_of_every_released_format_still_load():
    folders = sorted(OLD_FORMATS.glob("*/checkpoint-*"))
    assert [folder.parent.name for folder in folders] == [str(number + 1) for number in range(manifest.VERSION)]
    for folder in folders:
        loaded = load_checkpoint(folder)
        assert (loaded.step, loaded.position, loaded.world_size) == (3, 24, 2)
        assert loaded.digests == {"config": "c0ffee"}
        assert loaded.tensors["weight"].tolist() == [[1.0, -0.5], [math.inf, 0.25]]
        assert loaded.tensors["moment"].dtype == torch.bfloat16
        assert loaded.rng["torch"].tolist() == [1, 2, 3]
        assert loaded.data == {"epoch": 0.5, "best": -math.inf}


def test_strict_json_round_trips_random_values():
    chance = random.Random(0)

    def value(depth: int) -> JSON:
        leaves = (None, True, 1, -0.0, 1e-320, math.inf, -math.inf, "ü\u2028\ud800", 2**70)
        if depth == 0 or chance.random() < 0.4:
            return chance.choice(leaves)
        items = [value(depth - 1) for _ in range(chance.randrange(4))]
        return items if chance.random() < 0.5 else {str(number): item for number, item in enumerate(items)}

    for _ in range(500):
        one = value(4)
        assert strictjson.loads(strictjson.dumps(one)) == one
