"""Sounds go to one of several lengths, the two of a pair to the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modalign import load
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError
from modalign.model import Model
from modalign_audio.generators.testing import audioldm2


def pair(*parts: Part) -> Comparison:
    asked = [Message(role="user", parts=(Part(modality="text", value="rain"),))]
    chosen, rejected = (Response(messages=(Message(role="assistant", parts=(one,)),)) for one in parts)
    return Comparison.pair(asked, chosen, rejected)


def fitted(model: Model, row: Comparison) -> list[torch.Size]:
    found = [one.media for one in model.assembly.preparer.encode(row)]
    return [one.tensors["fitted"].shape for media in found for one in media.values() if one.tensors]


def sound(seconds: float) -> Part:
    value = torch.rand(1, round(seconds * 16000)) - 0.5
    return Part(modality="audio", value=value, facts={"sampling_rate": 16000})


def test_sounds_go_to_the_bucket_nearest_to_the_chosen(tmp_path: Path) -> None:
    options = {"seconds": 0.32, "duration_buckets": [0.32, 0.64], "tolerance": 1.0}
    model = load(str(audioldm2(tmp_path)), options=options)
    long, short = fitted(model, pair(sound(0.6), sound(0.5))), fitted(model, pair(sound(0.3), sound(0.5)))
    assert long[0] == long[1]
    assert short[0] == short[1]
    assert long[0][-1] == 2 * short[0][-1]


def test_a_length_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.options.*duration_buckets"):
        load(str(audioldm2(tmp_path)), options={"duration_buckets": [-1.0]})
