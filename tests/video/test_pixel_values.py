"""Pixel values of clips: the op's are the processor's to 1e-5, for frames and for towers of whole clips.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor
from transformers import VideoMAEVideoProcessor

from modalign.errors import ConfigError, KernelUnavailable, ModelError
from modalign.registry import registry
from modalign.roles import Content
from modalign_image.pixel_values import PixelValues
from modalign_image.testing import tiny_vision
from modalign_video.encoder import VideoEncoder, VideoOptions
from modalign_video.frame_encoder import FrameEncoder
from modalign_video.testing import FRAMES, SIZE, tiny_video
from modalign_video.tower import load_tower

KINDS = {"video": "videomae", "frames": "frames-over-clip"}
SIZES = ((40, 60), (61, 33), (32, 32), (17, 90), (129, 65))
MADE = {"video": [FRAMES], "frames": [1] * FRAMES}  # pictures of each call: a clip goes through at once


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {kind: tiny_video(tmp_path_factory.mktemp(kind), family) for kind, family in KINDS.items()}


def clip(height: int, width: int, *, last: bool = False) -> Content:
    made = torch.Generator().manual_seed(height * 1000 + width)
    pixels = torch.randint(256, (FRAMES, height, width, 3), dtype=torch.uint8, generator=made)
    frames = rearrange(pixels, "t h w c -> t c h w")
    return Content(modality="video", tensor=frames if last else frames.contiguous())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the op made."""
    found: list[int] = []
    made = PixelValues.__call__

    def counted(self: PixelValues, x: Tensor) -> Tensor:
        found.append(x.shape[0])
        return made(self, x)

    monkeypatch.setattr(PixelValues, "__call__", counted)
    return found


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_op_gives_what_the_processor_gives(
    kind: str, last: bool, folders: Mapping[str, Path], calls: list[int]
) -> None:
    load = registry.encoder(kind).load
    auto, own = (load(str(folders[kind]), pixels=name) for name in ("auto", "processor"))
    for height, width in SIZES:
        calls.clear()
        wanted = own.prepare(clip(height, width, last=last))
        assert not calls
        found = auto.prepare(clip(height, width, last=last))
        assert calls == MADE[kind]
        assert found.cost == wanted.cost
        torch.testing.assert_close(found.tensors["pixel_values"], wanted.tensors["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_who_makes_the_pixels_is_no_fact_of_what_is_cached(kind: str, folders: Mapping[str, Path]) -> None:
    load = registry.encoder(kind).load
    assert load(str(folders[kind]), pixels="fused").facts == load(str(folders[kind]), pixels="processor").facts


def test_floats_are_the_processors(folders: Mapping[str, Path], calls: list[int]) -> None:
    floats = Content(modality="video", tensor=clip(40, 60).tensor / 2)
    auto, own, named = (
        VideoEncoder.load(str(folders["video"]), pixels=name) for name in ("auto", "processor", "fused")
    )
    calls.clear()
    assert auto.prepare(floats).tensors["pixel_values"].equal(own.prepare(floats).tensors["pixel_values"])
    assert not calls
    with pytest.raises(ModelError, match=r"made of uint8; found: torch\.float32"):
        named.prepare(floats)


class Moved(VideoMAEVideoProcessor):
    """Does more than its settings say, as ViViT's does, which takes 1 off."""

    def rescale_and_normalize(self, images: Tensor, *given: Any, **named: Any) -> Tensor:  # noqa: ANN401 (as given)
        return super().rescale_and_normalize(images, *given, **named) - 1


def test_a_processor_of_another_kind_is_left_to_itself_and_refused_by_name(
    folders: Mapping[str, Path], tmp_path: Path, calls: list[int]
) -> None:
    tower, _ = load_tower(str(folders["video"]))
    moved = Moved(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    auto = VideoEncoder(tower, moved)
    calls.clear()
    found = auto.prepare(clip(40, 60)).tensors["pixel_values"]
    assert not calls
    wanted = moved(videos=[clip(40, 60).tensor], return_tensors="pt")["pixel_values"][0]
    assert found.equal(wanted)
    with pytest.raises(KernelUnavailable, match=r"pixels: .*does not give what Moved gives.* differ by 1\.0e\+00"):
        VideoEncoder(tower, moved, VideoOptions(pixels="fused"))
    with pytest.raises(KernelUnavailable, match=r"pixels: .*Siglip2ImageProcessor"):
        FrameEncoder.load(str(tiny_vision(tmp_path, "siglip2")), pixels="fused")


@pytest.mark.parametrize("kind", KINDS)
def test_another_choice_is_refused(kind: str, folders: Mapping[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"^pixels: .*'auto', 'fused' or 'processor'"):
        registry.encoder(kind).load(str(folders[kind]), pixels="fast")
