"""Pillow's pictures of every mode as red, green and blue in 8 bits, by stated rules.

| mode | rule |
|---|---|
| RGB, L, 1, P | as they are; grey becomes three equal channels |
| RGBA, LA, PA, and a transparent colour or palette entry | laid on the background, alpha in 8 bits |
| I;16 (16-bit grey) | scaled, white is 65535; Pillow's own conversion would cut everything above 255 to white |
| 16-bit RGB and RGBA | the upper byte of each value, as Pillow reads them |
| I (32-bit integers) | scaled like 16 bits; a value outside 0 to 65535 is refused, for nothing says what white is |
| F (floats) | 0 is black and 1 white; a value outside, or not finite, is refused |
| CMYK, YCbCr, HSV | Pillow's plain formulas |
| LAB, and what Pillow has no conversion for | refused |

Colour profiles (ICC) and gamma are left alone: models are trained on pixels read without them. The EXIF orientation
is applied.

c channels, h w pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from modalign.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION: Final = 0x0112  # the EXIF tag
_GREY_STEPS: Final = {"L;2": 85, "L;4": 17}  # levels between two greys of 2 and 4 bits
_WHITE: Final = 65535


def rgb(image: Image.Image, background: tuple[int, int, int]) -> Tensor:
    """A picture upright, ``3 h w`` of uint8; its memory may lie channels last.

    image: opened; its pixels are decoded here.
    background: what transparent pixels are laid on.
    """
    _mend_transparency(image)
    image.load()
    if image.mode.startswith("I;16"):
        pixels = _sixteen(np.array(image).astype(np.int32), background, image.info.get("transparency"))
    elif image.mode == "I":
        pixels = _integers(np.array(image))
    elif image.mode == "F":
        pixels = _floats(np.array(image))
    else:
        pixels = rearrange(torch.from_numpy(np.array(_colours(image, background))), "h w c -> c h w")
    return upright(pixels, image.getexif().get(_ORIENTATION, 1))


def upright(pixels: Tensor, orientation: object) -> Tensor:
    """Pixels ``c h w`` turned the way their EXIF orientation says; one that is none of 1 to 8 says nothing."""
    match orientation:
        case 2:
            return pixels.flip(-1)
        case 3:
            return pixels.flip(-1, -2)
        case 4:
            return pixels.flip(-2)
        case 5:
            return rearrange(pixels, "c h w -> c w h")
        case 6:
            return rearrange(pixels, "c h w -> c w h").flip(-1)
        case 7:
            return rearrange(pixels, "c h w -> c w h").flip(-1, -2)
        case 8:
            return rearrange(pixels, "c h w -> c w h").flip(-2)
        case _:
            return pixels


def transparent(image: Image.Image) -> bool:
    """Whether some of its pixels may be transparent, as its mode and header say."""
    return image.has_transparency_data


def rgba(image: Image.Image) -> Image.Image:
    """A picture with transparency in mode RGBA."""
    _mend_transparency(image)
    image.load()
    # where alpha was multiplied in, Pillow has no way to RGBA but through LA
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _mend_transparency(image: Image.Image) -> None:
    """Make a PNG's transparent colour one of the values that its pixels will be decoded to."""
    key, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    if key is None or isinstance(key, bytes) or not tiles:
        return
    stored = tiles[0].args if isinstance(tiles[0].args, str) else ""
    if stored == "RGB;16B":
        raise DataError(
            "a transparent colour in 16 bits cannot be told from its neighbours in 8",
            got="a 16-bit RGB PNG with a tRNS chunk",
            fix="save it with 8 bits, or with an alpha channel",
        )
    if image.mode == "L":
        image.info["transparency"] = key * _GREY_STEPS.get(stored, 1)


def _colours(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    if not transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    page = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(page, rgba(image)).convert("RGB")


def _grey(values: np.ndarray) -> Tensor:
    """Values from 0 to 65535, ``h w``, as three equal channels of the nearest of 255 levels."""
    return repeat(torch.from_numpy(((values + 128) // 257).astype(np.uint8)), "h w -> c h w", c=3).contiguous()


def _sixteen(values: np.ndarray, background: tuple[int, int, int], key: object) -> Tensor:
    pixels = _grey(values)
    if isinstance(key, int):
        seen = torch.from_numpy(values != key)
        pixels = torch.where(seen, pixels, torch.tensor(background, dtype=torch.uint8)[:, None, None])
    return pixels


def _integers(values: np.ndarray) -> Tensor:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _WHITE:
        raise DataError(
            "32-bit integers that no rule makes grey",
            got=f"values from {low} to {high}",
            fix="scale them to 0 to 65535, or save 8 or 16 bits",
        )
    return _grey(values)


def _floats(values: np.ndarray) -> Tensor:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # so that NaN is refused too
        raise DataError(
            "floats that no rule makes grey", got=f"values from {low:.4g} to {high:.4g}", fix="scale them to 0 to 1"
        )
    levels = np.round(values * 255).astype(np.uint8)
    return repeat(torch.from_numpy(levels), "h w -> c h w", c=3).contiguous()
