"""Clips go to one of several lengths, the two of a pair to the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modalign import load
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError
from modalign.model import Model
from modalign_video.generators.testing import wan


def pair(*parts: Part) -> Comparison:
    asked = [Message(role="user", parts=(Part(modality="text", value="rain"),))]
    chosen, rejected = (Response(messages=(Message(role="assistant", parts=(one,)),)) for one in parts)
    return Comparison.pair(asked, chosen, rejected)


def fitted(model: Model, row: Comparison) -> list[torch.Size]:
    found = [one.media for one in model.assembly.preparer.encode(row)]
    return [one.tensors["fitted"].shape for media in found for one in media.values() if one.tensors]


def clip(frames: int) -> Part:
    return Part(modality="video", value=torch.rand(frames, 3, 16, 16), facts={"fps": 8.0})


def test_clips_are_cut_to_the_longest_bucket_that_both_have(tmp_path: Path) -> None:
    options = {"height": 16, "width": 16, "num_frames": 5, "fps": 8, "frame_buckets": [5, 9], "length_tolerance": 1.0}
    model = load(str(wan(tmp_path)), options=options)
    assert [shape[0] for shape in fitted(model, pair(clip(9), clip(10)))] == [9, 9]
    assert [shape[0] for shape in fitted(model, pair(clip(9), clip(6)))] == [5, 5]


def test_a_length_that_no_latents_make_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.options\.frame_buckets: .*found: 6 frames"):
        load(str(wan(tmp_path)), options={"frame_buckets": [6], "fps": 8})
