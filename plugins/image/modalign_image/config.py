"""What a user may set about how pictures are decoded."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import Field, PositiveInt

from modalign.roles import MediaSettings

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
FORMATS: tuple[Format, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

MOST_BYTES = 1 << 30  #: no settings allow more of an encoded picture
MOST_PIXELS = 178_956_970  #: no settings allow more: it is where Pillow itself refuses

Level = Annotated[int, Field(ge=0, le=255)]


@final
class ImageSettings(MediaSettings):
    """How pictures are decoded, and the most that is decoded.

    >>> ImageSettings(max_pixels=1_000_000).background
    (255, 255, 255)
    """

    max_bytes: PositiveInt = Field(default=64 << 20, le=MOST_BYTES)
    """Most bytes of an encoded picture."""

    max_pixels: PositiveInt = Field(default=64_000_000, le=MOST_PIXELS)
    """Most pixels, height times width. Decoding takes up to 16 bytes for each; above 89 million Pillow warns."""

    background: tuple[Level, Level, Level] = (255, 255, 255)
    """Red, green and blue, 0 to 255, that transparent pixels are laid on; white by default, as on a page."""

    animated: Literal["first", "error"] = "first"
    """A picture of several frames or pages: take the first, or refuse it."""

    formats: tuple[Format, ...] = Field(default=FORMATS, min_length=1)
    """File formats that are read."""
