"""Pixel values: the op's are the processor's to 1e-5, and where they would not be the processor makes them.

b pictures, c channels, h w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor
from transformers import CLIPImageProcessor, SiglipImageProcessor

from modalign.errors import ConfigError, KernelUnavailable, ModelError
from modalign.roles import Content
from modalign_image import pixel_values
from modalign_image.encoder import VisionEncoder
from modalign_image.pixel_values import PixelValues, _announce, fused_values
from modalign_image.testing import tiny_vision

SIZES = ((40, 60), (60, 40), (33, 91), (32, 32), (31, 17), (5, 7), (301, 64), (1, 1), (224, 223))
FUSED = ("clip", "siglip", "dinov2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {family: tiny_vision(tmp_path_factory.mktemp(family), family) for family in (*FUSED, "siglip2")}


def content(height: int, width: int, *, last: bool = True) -> Content:
    made = torch.Generator().manual_seed(height * 1000 + width)
    pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=made)
    lying = rearrange(pixels, "h w c -> c h w")  # as decoded pictures lie
    return Content(modality="image", tensor=lying if last else lying.contiguous())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the op made pixel values."""
    found: list[int] = []
    made = PixelValues.__call__

    def counted(self: PixelValues, x: Tensor) -> Tensor:
        found.append(x.shape[0])
        return made(self, x)

    monkeypatch.setattr(PixelValues, "__call__", counted)
    return found


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("family", FUSED)
def test_the_op_gives_what_the_processor_gives(
    family: str, last: bool, folders: Mapping[str, Path], calls: list[int]
) -> None:
    auto, own = (VisionEncoder.load(str(folders[family]), pixels=name) for name in ("auto", "processor"))
    calls.clear()
    for height, width in SIZES:
        picture = content(height, width, last=last)
        wanted = own.prepare(picture)
        assert not calls  # the processor made these
        found = auto.prepare(picture)
        assert calls.pop() == 1
        assert list(found.tensors) == list(wanted.tensors) == ["pixel_values"]
        assert found.cost == wanted.cost
        # values reach 2.2; the library folds 1/255 into mean and deviation, both round to float32: under 1e-6
        torch.testing.assert_close(found.tensors["pixel_values"], wanted.tensors["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_center_crop": True, "crop_size": {"height": 24, "width": 40}},
        {"do_center_crop": True, "crop_size": {"height": 48, "width": 48}},  # larger than the picture: black around it
        {"do_normalize": False},
        {"resample": 2},
        {"resample": 0},
        {"do_resize": False},
        {"image_mean": [0.0, 0.1, 0.9], "image_std": [0.3, 1.0, 2.0]},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_a_processors_settings_are_kept(settings: dict[str, object]) -> None:
    processor = SiglipImageProcessor(**{"size": {"height": 32, "width": 32}, **settings})  # pyright: ignore[reportArgumentType]
    made = PixelValues(processor)
    for height, width in SIZES:
        x = content(height, width).tensor
        wanted = processor(images=x, return_tensors="pt", input_data_format="channels_first")["pixel_values"]
        torch.testing.assert_close(made(x[None]), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pixels", ["auto", "fused", "processor"])
def test_who_makes_the_pixels_is_no_fact_of_what_is_cached(pixels: str, folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders["clip"]), pixels=pixels)
    assert encoder.facts["options"] == '{"layer":-2,"select":"patch"}'
    assert encoder.facts == VisionEncoder.load(str(folders["clip"])).facts


def test_a_processor_that_makes_more_is_left_to_itself(folders: Mapping[str, Path], calls: list[int]) -> None:
    auto, own = (VisionEncoder.load(str(folders["siglip2"]), pixels=name) for name in ("auto", "processor"))
    calls.clear()
    found, wanted = auto.prepare(content(40, 60)), own.prepare(content(40, 60))
    assert not calls
    assert all(found.tensors[name].equal(wanted.tensors[name]) for name in wanted.tensors)


def test_by_name_the_op_is_refused_where_it_would_differ(folders: Mapping[str, Path]) -> None:
    says = r"pixels: .*Siglip2ImageProcessor gives; found: it makes pixel_attention_mask.*pixels='auto' or 'processor'"
    with pytest.raises(KernelUnavailable, match=says):
        VisionEncoder.load(str(folders["siglip2"]), pixels="fused")
    with pytest.raises(ConfigError, match=r"^pixels: "):
        VisionEncoder.load(str(folders["clip"]), pixels="fast")


class Brighter(CLIPImageProcessor):
    """Does more than its settings say, a little, and with wide pictures only."""

    def rescale_and_normalize(self, images: Tensor, *given: Any, **named: Any) -> Tensor:  # noqa: ANN401 (as given)
        made = super().rescale_and_normalize(images, *given, **named)
        return made + 2e-5 if images.shape[-1] > 60 else made


class Broken(CLIPImageProcessor):
    def resize(self, *_: object, **__: object) -> Tensor:
        raise OSError("no such filter")


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        (Brighter(do_resize=False, do_center_crop=False), r"pictures of 17 by 115 differ by 2\.\de-05"),
        (Broken(), "OSError: no such filter"),
        (CLIPImageProcessor(do_rescale=False, do_normalize=False), r"torch\.uint8 .*not torch\.float32"),
    ],
)
def test_auto_says_once_why_it_leaves_the_processor(
    processor: CLIPImageProcessor, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def theirs(x: Tensor) -> Mapping[str, Tensor]:
        return processor(images=list(x), return_tensors="pt", input_data_format="channels_first")

    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger=pixel_values.__name__):
        for _ in range(2):
            assert fused_values("auto", processor, theirs, name="pixel_values", frames=1) is None
    (record,) = caplog.records
    assert record.getMessage().startswith("pixels='auto' takes 'processor': fused does not give what")
    with pytest.raises(KernelUnavailable, match=says):
        fused_values("fused", processor, theirs, name="pixel_values", frames=1)
    assert fused_values("processor", processor, theirs, name="pixel_values", frames=1) is None


def test_auto_says_once_that_it_takes_the_op(folders: Mapping[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger=pixel_values.__name__):
        for _ in range(2):
            VisionEncoder.load(str(folders["clip"]))
    assert [one.getMessage() for one in caplog.records] == [
        "pixels='auto' takes 'fused': it gives what CLIPImageProcessor gives"
    ]


def test_pixels_that_are_no_bytes_are_the_processors(folders: Mapping[str, Path], calls: list[int]) -> None:
    floats = Content(modality="image", tensor=content(40, 60).tensor / 2)
    auto, own, named = (
        VisionEncoder.load(str(folders["clip"]), pixels=name) for name in ("auto", "processor", "fused")
    )
    calls.clear()
    assert auto.prepare(floats).tensors["pixel_values"].equal(own.prepare(floats).tensors["pixel_values"])
    assert not calls
    with pytest.raises(ModelError, match=r"made of uint8; found: torch\.float32"):
        named.prepare(floats)


def test_the_proof_leaves_the_random_state_alone(folders: Mapping[str, Path]) -> None:
    before = torch.get_rng_state()
    VisionEncoder.load(str(folders["clip"]))
    assert torch.get_rng_state().equal(before)
