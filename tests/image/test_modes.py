"""Pixels of every mode, against arithmetic done by hand; nothing saturates, turns or vanishes.

c channels, h w pixels.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from modalign.errors import DataError
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.samples import chunk, encode, photo, png

MODALITY = ImageModality()


def decoded(data: bytes, **settings: object) -> list[list[list[int]]]:
    """Pixels as rows of columns of red, green and blue."""
    part = MODALITY.read({"type": "image", "image": data}, root=None)
    content = MODALITY.decode(part, ImageSettings.model_validate(settings))
    assert content.tensor.dtype == torch.uint8
    return content.tensor.permute(1, 2, 0).tolist()


def grey(*values: int) -> list[list[list[int]]]:
    return [[[value] * 3 for value in values]]


def image(mode: str, *pixels: object) -> Image.Image:
    """A picture of one row."""
    made = Image.new(mode, (len(pixels), 1))
    for index, pixel in enumerate(pixels):
        made.putpixel((index, 0), pixel)  # pyright: ignore[reportArgumentType]
    return made


def palette(*entries: tuple[int, int, int]) -> Image.Image:
    made = image("P", *range(len(entries)))
    made.putpalette([level for entry in entries for level in entry])
    return made


def test_one_bit_is_black_and_white() -> None:
    assert decoded(encode(image("1", 0, 1), "PNG")) == grey(0, 255)


def test_grey_becomes_three_equal_channels() -> None:
    assert decoded(encode(image("L", 0, 7, 255), "PNG")) == grey(0, 7, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_on_the_background(kind: str) -> None:
    data = encode(image("LA", (100, 255), (100, 0), (0, 51)), kind)
    assert decoded(data) == grey(100, 255, 204)  # 0 * 0.2 + 255 * 0.8 = 204
    assert decoded(data, background=(10, 10, 10)) == grey(100, 10, 8)  # 10 * 0.8 = 8


def test_palette_entries_become_their_colours() -> None:
    assert decoded(encode(palette((1, 2, 3), (250, 0, 5)), "PNG")) == [[[1, 2, 3], [250, 0, 5]]]


def test_transparent_palette_entries_are_laid_on_the_background() -> None:
    data = encode(palette((1, 2, 3), (0, 0, 0)), "PNG", transparency=1)
    assert decoded(data, background=(9, 8, 7)) == [[[1, 2, 3], [9, 8, 7]]]
    half = encode(palette((1, 2, 3), (0, 0, 0)), "PNG", transparency=bytes([255, 51]))
    assert decoded(half) == [[[1, 2, 3], [204, 204, 204]]]  # 0 * 0.2 + 255 * 0.8


@pytest.mark.parametrize(("kind", "more"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_colour_comes_back_as_it_was_saved(kind: str, more: dict[str, object]) -> None:
    assert decoded(encode(photo(5, 7), kind, **more)) == np.array(photo(5, 7)).tolist()


def test_a_jpeg_has_the_pixels_that_pillow_decodes() -> None:
    data = encode(photo(), "JPEG", quality=90)
    assert decoded(data) == np.array(Image.open(io.BytesIO(data))).tolist()


@pytest.mark.parametrize(("kind", "more"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_colour_with_alpha_is_laid_on_the_background(kind: str, more: dict[str, object]) -> None:
    data = encode(image("RGBA", (10, 20, 30, 255), (10, 20, 30, 0), (0, 255, 0, 51)), kind, **more)
    # 0.2 * (0, 255, 0) + 0.8 * (255, 0, 0) = (204, 51, 0)
    assert decoded(data, background=(255, 0, 0)) == [[[10, 20, 30], [255, 0, 0], [204, 51, 0]]]


def test_a_transparent_colour_of_a_png_is_the_background() -> None:
    data = encode(image("RGB", (1, 2, 3), (4, 5, 6)), "PNG", transparency=(4, 5, 6))
    assert decoded(data) == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize(("depth", "row"), [(2, 0b00_01_10_11), (4, 0x05)])
def test_a_transparent_grey_of_few_bits_is_the_right_one(depth: int, row: int) -> None:
    # the key counts in the file's own greys: of 2 bits 0 to 3, of 4 bits 0 to 15
    key = {2: 2, 4: 5}[depth]
    data = png(8 // depth, 1, bytes([0, row]), depth=depth, colour=0, before=chunk(b"tRNS", struct.pack(">H", key)))
    wanted = {2: grey(0, 85, 9, 255), 4: grey(0, 9)}[depth]
    assert decoded(data, background=(9, 9, 9)) == wanted


def test_cmyk_is_light_that_the_inks_let_through() -> None:
    data = encode(image("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 51)), "TIFF")
    assert decoded(data) == [[[255, 255, 255], [0, 255, 255], [0, 0, 0], [204, 204, 204]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut(kind: str) -> None:
    values = (0, 128, 129, 257, 32768, 65406, 65407, 65535)
    # round(v / 257): 128 -> 0, 129 -> 1 (0.502), 32768 -> 128 (127.502), 65406 -> 254 (254.498), 65407 -> 255
    assert decoded(encode(image("I;16", *values), kind)) == grey(0, 0, 1, 1, 128, 254, 255, 255)


def test_big_endian_sixteen_bits_are_the_same() -> None:
    assert decoded(encode(image("I;16B", 257, 65535), "TIFF")) == grey(1, 255)


def test_a_transparent_value_of_sixteen_bits_is_the_background() -> None:
    rows = b"\0" + struct.pack(">HHH", 1000, 1001, 65535)
    data = png(3, 1, rows, depth=16, colour=0, before=chunk(b"tRNS", struct.pack(">H", 1001)))
    assert decoded(data, background=(1, 2, 3)) == [[[4, 4, 4], [1, 2, 3], [255, 255, 255]]]  # 1000 / 257 = 3.9


def test_sixteen_bit_colour_is_its_upper_byte() -> None:
    rows = b"\0" + struct.pack(">HHHHHH", 0, 255, 256, 0x1234, 0xFEFF, 65535)
    assert decoded(png(2, 1, rows, depth=16)) == [[[0, 0, 1], [0x12, 0xFE, 255]]]


def test_a_transparent_colour_of_sixteen_bits_is_refused() -> None:
    data = png(1, 1, bytes(7), depth=16, before=chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    with pytest.raises(DataError, match=r"field=image: a transparent colour in 16 bits"):
        decoded(data)


def test_integers_are_scaled_like_sixteen_bits_or_refused() -> None:
    assert decoded(encode(image("I", 0, 257, 65535), "TIFF")) == grey(0, 1, 255)
    for value in (-1, 65536):
        with pytest.raises(DataError, match=r"field=image: 32-bit integers.*scale them to 0 to 65535"):
            decoded(encode(image("I", 0, value), "TIFF"))


def test_floats_run_from_black_to_white_or_are_refused() -> None:
    assert decoded(encode(image("F", 0.0, 0.5, 1.0), "TIFF")) == grey(0, 128, 255)  # 127.5 to the even one
    for value in (-0.1, 1.1, 200.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"field=image: floats.*scale them to 0 to 1"):
            decoded(encode(image("F", 0.0, value), "TIFF"))


FORMATS = [("JPEG", {"quality": 95}), ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]


@pytest.mark.parametrize(("kind", "more"), [*FORMATS, ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright(kind: str, more: dict[str, object], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(6, 9), kind, exif=exif, **more)
    wanted = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert decoded(data) == wanted.tolist()
    assert wanted.shape == ((9, 6, 3) if orientation >= 5 else (6, 9, 3))


def test_an_orientation_that_does_not_exist_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert decoded(encode(photo(2, 3), "PNG", exif=exif)) == np.array(photo(2, 3)).tolist()


@pytest.mark.parametrize(("kind", "more"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_of_an_animation_the_first_frame_is_taken_or_it_is_refused(kind: str, more: dict[str, object]) -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **more)
    assert decoded(data) == [[[200, 0, 0]] * 3] * 2
    with pytest.raises(DataError, match=r"field=image: a picture of several frames.*animated: first"):
        decoded(data, animated="error")
    assert decoded(encode(frames[0], kind, **more), animated="error") == [[[200, 0, 0]] * 3] * 2


def test_transparent_pixels_of_a_gif_are_the_background() -> None:
    data = encode(image("RGBA", (200, 0, 0, 255), (0, 0, 0, 0)), "GIF")
    assert decoded(data, background=(1, 2, 3)) == [[[200, 0, 0], [1, 2, 3]]]


def test_a_colour_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert decoded(encode(photo(3, 3), "PNG", icc_profile=profile)) == np.array(photo(3, 3)).tolist()
