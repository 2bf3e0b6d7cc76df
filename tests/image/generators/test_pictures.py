"""How pictures are fitted to what a generator makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from modalign.errors import DataError
from modalign.roles import Content
from modalign_image.generators.base import PictureFit


def content(picture: Tensor) -> Content:
    return Content(modality="image", tensor=picture)


def noise(channels: int, height: int, width: int) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(256, (channels, height, width), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (24, 8)])
@pytest.mark.parametrize(
    "found", [(16, 16), (8, 8), (64, 48), (17, 31), (31, 17), (1, 1), (1, 400), (400, 1), (333, 500)]
)
def test_every_picture_comes_out_of_the_size_that_is_made(size: tuple[int, int], found: tuple[int, int]) -> None:
    fitted = PictureFit(*size)(content(noise(3, *found)))
    assert fitted.shape == (3, *size)
    assert fitted.dtype == torch.uint8
    assert fitted.is_contiguous()


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    picture = noise(3, 16, 24)
    assert PictureFit(16, 24)(content(picture)).equal(picture)


def test_the_shorter_edge_is_resized_and_the_middle_kept() -> None:
    picture = noise(3, 32, 96)
    fitted = PictureFit(16, 16)(content(picture))
    assert fitted.equal(center_crop(resize(picture, [16, 48], antialias=True), [16, 16]))


def test_of_a_very_long_picture_the_middle_is_kept_and_little_else_resized() -> None:
    picture = torch.zeros(3, 1, 100_001, dtype=torch.uint8)
    picture[:, :, 50_000 - 2 : 50_000 + 3] = 200
    # all of it at this size would be 3 * 1024 * 102 million bytes, 300 gigabytes
    fitted = PictureFit(1024, 1024)(content(picture))
    assert fitted.shape == (3, 1024, 1024)
    assert (fitted == 200).all()


def test_grey_pictures_get_three_equal_channels() -> None:
    picture = noise(1, 16, 16)
    assert PictureFit(16, 16)(content(picture)).equal(picture.expand(3, -1, -1))
    assert PictureFit(16, 16)(content(noise(2, 16, 16))).equal(noise(2, 16, 16)[:1].expand(3, -1, -1))


def test_of_four_channels_the_last_is_left_out() -> None:
    picture = noise(4, 16, 16)
    assert PictureFit(16, 16)(content(picture)).equal(picture[:3])


def test_pictures_of_about_the_same_shape_may_be_compared() -> None:
    fit = PictureFit(16, 16, tolerance=0.25)
    fit.check([])
    fit.check([content(noise(3, 16, 16)), content(noise(3, 64, 64))])
    fit.check([content(noise(3, 40, 40)), content(noise(3, 40, 50))])  # 50 / 40 is 1.25 times 1


def test_pictures_of_other_shapes_are_refused_by_field() -> None:
    fit = PictureFit(16, 16, tolerance=0.25)
    with pytest.raises(DataError, match=r"aspect ratios from 1\.00 to 1\.27.*aspect_tolerance") as caught:
        fit.check([content(noise(3, 40, 40)), content(noise(3, 40, 51))])
    assert caught.value.field == "rejected"
    PictureFit(16, 16, tolerance=0.3).check([content(noise(3, 40, 40)), content(noise(3, 40, 51))])


def test_latents_are_known_by_what_they_were_fitted_to() -> None:
    assert PictureFit(16, 24).facts == {"height": 16, "width": 24, "tolerance": 0.25}
