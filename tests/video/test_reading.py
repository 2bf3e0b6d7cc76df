"""Blocks of clips: what they may hold, what is refused and in which words, and what saving and showing make of them."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re

import av
import numpy as np
import pytest
import torch

from modalign.content import Part
from modalign.errors import DataError
from modalign.files import File
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality
from modalign_video.testing import numbered_clip, numbered_frames, numbers_in

MODALITY = VideoModality()
CLIP = numbered_clip(10)
SHA = hashlib.sha256(CLIP).hexdigest()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.mp4").write_bytes(CLIP)
    return tmp_path


def read(root=None, **block):
    return MODALITY.read({"type": "video", **block}, root=root)


def numbers(part):
    return numbers_in(MODALITY.decode(part, VideoSettings(frames=10)).tensor)


@pytest.mark.parametrize(
    "block",
    [
        {"video": "clips/one.mp4"},
        {"path": "clips/one.mp4"},
        {"video": CLIP},
        {"bytes": CLIP},
        {"video": bytearray(CLIP)},
        {"video": {"bytes": CLIP, "path": "/home/its/maker/one.mp4"}},
        {"video": {"bytes": None, "path": "clips/one.mp4"}},
        {"video": "clips/one.mp4", "sha256": SHA.upper()},
        {"video": {"path": "clips/one.mp4", "sha256": SHA.upper()}},
        {"video": {"bytes": CLIP, "path": "gone.mp4", "sha256": SHA}, "sha256": SHA},
        {"video": numbered_frames(range(10))},
        {"video": numbered_frames(range(10)) / 255, "fps": 10},
        {"video": numbered_frames(range(10)).permute(0, 2, 3, 1).numpy(), "fps": 10},
    ],
)
def test_every_form_of_a_clip_shows_the_same_frames(root, block):
    part = read(root, **block)
    assert numbers(part) == list(range(10))
    assert MODALITY.read(MODALITY.block(part), root=root) == part


def test_a_file_and_its_bytes_are_the_same_content(root):
    assert read(root, video="clips/one.mp4") == read(video=CLIP)
    assert read(video=CLIP, start=0.5) != read(video=CLIP)


def test_a_file_is_kept_as_a_file(root):
    part = read(root, video="clips/one.mp4", start=0.2, end=0.8)
    assert part.value == File(root=root, name="clips/one.mp4")
    assert MODALITY.block(part) == {"type": "video", "video": "clips/one.mp4", "start": 0.2, "end": 0.8}


def test_a_changed_array_changes_no_part():
    array = numbered_frames([1]).permute(0, 2, 3, 1).numpy().copy()
    part = read(video=array)
    array[:] = 0
    assert isinstance(part.value, torch.Tensor)
    assert numbers_in(part.value) == [1]


FLOATS = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("block", "field", "words"),
    [
        ({}, "video", "none of them"),
        ({"video": None}, "video", "none of them"),
        ({"video": CLIP, "path": "x.mp4"}, "path", "video and path"),
        ({"video": CLIP, "caption": "x"}, "caption", "nothing reads"),
        ({"video": 3}, "video", "number 3"),
        ({"video": ["a.mp4"]}, "video", "a list"),
        ({"video": {}}, "video", "empty object"),
        ({"video": {"url": "http://x"}}, "video", "an object with url"),
        ({"path": {"path": "x"}}, "path", "an object"),
        ({"bytes": "x"}, "bytes", "string"),
        ({"path": CLIP}, "path", "bytes"),
        ({"video": b""}, "video", "an empty file"),
        ({"bytes": b"\x00" * 400}, "bytes", "no container"),
        ({"video": "../one.mp4"}, "video", "may not leave"),
        ({"video": "/etc/passwd"}, "video", "relative"),
        ({"video": "https://example.org/a.mp4"}, "video", "not a URL"),
        ({"video": "clips/two.mp4"}, "video", "no such file"),
        ({"video": "clips"}, "video", "no regular file"),
        ({"video": CLIP, "fps": 3}, "fps", "its own times"),
        ({"video": FLOATS, "fps": 0}, "fps", "between"),
        ({"video": FLOATS, "fps": math.nan}, "fps", "finite"),
        ({"video": FLOATS, "fps": True}, "fps", "expected a number"),
        ({"video": FLOATS, "fps": "8"}, "fps", "expected a number"),
        ({"video": CLIP, "start": -1}, "start", "at least 0"),
        ({"video": CLIP, "start": math.nan}, "start", "finite"),
        ({"video": CLIP, "start": 1, "end": 1}, "end", "end after its start"),
        ({"video": CLIP, "sha256": "abc"}, "sha256", "64 hex"),
        ({"video": CLIP, "sha256": "0" * 64}, "sha256", "not the one"),
        ({"video": {"bytes": CLIP, "sha256": "0" * 64}}, "sha256", "not the one"),
        ({"video": {"path": "clips/one.mp4", "sha256": "abc"}}, "sha256", "64 hex"),
        ({"video": {"path": "clips/one.mp4", "sha256": SHA}, "sha256": "0" * 64}, "sha256", "different things"),
        ({"video": {"sha256": SHA}}, "video", "has bytes or path"),
        ({"video": FLOATS, "sha256": SHA}, "sha256", "only a file"),
        ({"video": torch.zeros(5)}, "video", "t 3 h w"),
        ({"video": torch.zeros(2, 4, 4, 3)}, "video", r"\(2, 4, 4, 3\)"),
        ({"video": torch.zeros(0, 3, 4, 4)}, "video", "t 3 h w"),
        ({"video": torch.zeros(2, 3, 4, 4, dtype=torch.int64)}, "video", "int64"),
        ({"video": torch.full((2, 3, 4, 4), math.inf)}, "video", "infinity"),
        ({"video": torch.full((2, 3, 4, 4), math.nan)}, "video", "NaN"),
        ({"video": torch.full((2, 3, 4, 4), 255.0)}, "video", "from 255 to 255"),
        ({"video": np.zeros((2, 3, 4, 4), np.uint8)}, "video", "t h w 3"),
        ({"video": np.zeros((2, 4, 4, 3))}, "video", "float64"),
    ],
)
def test_a_block_that_says_no_clip_is_refused_with_its_field(root, block, field, words):
    with pytest.raises(DataError, match=words) as caught:
        read(root, **block)
    assert caught.value.field == field


def test_files_need_a_root():
    with pytest.raises(DataError, match=r"set data\.root") as caught:
        read(video="clips/one.mp4")
    assert caught.value.field == "video"


def test_a_file_that_changed_since_its_row_was_written_is_refused(root):
    part = read(root, video="clips/one.mp4", sha256=SHA)
    (root / "clips" / "one.mp4").write_bytes(numbered_clip(11))
    with pytest.raises(DataError, match="not the one its row means") as caught:
        MODALITY.decode(part, VideoSettings())
    assert caught.value.field == "sha256"


def test_an_object_says_its_own_sha256(root):
    assert read(root, video={"path": "clips/one.mp4", "sha256": SHA}).facts == {"sha256": SHA}
    assert read(root, video={"path": "clips/one.mp4", "sha256": None}).facts == {}
    other = read(root, video={"path": "clips/one.mp4", "sha256": "0" * 64})
    with pytest.raises(DataError, match="not the one its row means") as caught:
        MODALITY.decode(other, VideoSettings())
    assert caught.value.field == "sha256"


def test_what_is_encoded_is_saved_byte_for_byte(root):
    for container, suffix in (("mp4", ".mp4"), ("matroska", ".mkv"), ("avi", ".avi")):
        clip = numbered_clip(3, container=container)
        saved = MODALITY.save(read(video=clip), root / "part")
        assert saved == root / f"part{suffix}"
        assert saved.read_bytes() == clip


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (1, 1), (64, 3)])
def test_frames_of_any_size_are_saved_and_shown(tmp_path, size):
    part = read(video=torch.rand((3, 3, *size), generator=torch.Generator().manual_seed(0)), fps=5)
    found = encoded_frames(MODALITY.save(part, tmp_path / "part").read_bytes())
    # an odd row or column is repeated
    assert found.shape == (3, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert encoded_frames(shown_bytes(MODALITY.show(part))).shape[0] == 3


def test_frames_in_memory_are_saved_at_their_rate(tmp_path):
    saved = MODALITY.save(read(video=numbered_frames(range(5)), fps=5), tmp_path / "part")
    content = MODALITY.decode(read(video=saved.read_bytes()), VideoSettings(frames=5))
    assert numbers_in(content.tensor) == [0, 1, 2, 3, 4]
    assert content.seconds == 1.0


def test_an_encoded_clip_is_shown_in_its_own_time(root):
    shown = shown_bytes(MODALITY.show(read(root, video="clips/one.mp4")))
    content = MODALITY.decode(read(video=shown), VideoSettings())
    assert content.seconds == pytest.approx(1.0, abs=0.01)


def shown_bytes(html):
    plays = "autoplay controls loop muted playsinline"
    found = re.fullmatch(rf'<video {plays} width="\d+" src="data:video/mp4;base64,(.+)"></video>', html)
    assert found is not None
    return base64.b64decode(found[1])


def encoded_frames(data):
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_part_of_another_kind_cannot_be_written():
    with pytest.raises(DataError, match="t 3 h w"):
        MODALITY.block(Part(modality="video", value=torch.zeros(3)))
