"""Pictures as a modality: files, encoded bytes and pixels in memory.

c channels, h w pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError, ModelError
from modalign.files import File
from modalign.roles import Content, MediaSettings, Modality
from modalign.shown import shown
from modalign_image.config import MOST_PIXELS, ImageSettings
from modalign_image.encoded import content, decode, examine
from modalign_image.frames import check_frames, frames_uint8
from modalign_image.headers import MIME, SUFFIXES
from modalign_image.reading import read_block

_SHOWN = 160  #: pixels a small picture is shown at
_WIDEST = 320  #: pixels a picture from a file is shown at


@final
class ImageModality(Modality):
    """Pictures: files of JPEG, PNG, WebP, GIF, BMP and TIFF, the same as bytes, or pixels ``3 h w`` in memory.

    Reading opens a file and checks its header, so that one that is missing, absurd or no picture is found at once;
    its pixels are decoded when a model needs them, as `pixels.py` states. Where a row says a SHA-256, bytes are checked
    when they are read and files when they are decoded.

    >>> import torch
    >>> picture = ImageModality()
    >>> part = picture.read({"type": "image", "image": torch.ones(3, 2, 4)}, root=None)
    >>> picture.decode(part, ImageSettings()).tensor.shape
    torch.Size([3, 2, 4])
    """

    name: ClassVar[str] = "image"
    blocks: ClassVar[tuple[str, ...]] = ("image",)
    columns: ClassVar[tuple[str, ...]] = ("image", "images")
    settings: ClassVar[type[MediaSettings]] = ImageSettings

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        return read_block(block, root=root)

    def block(self, part: Part) -> Mapping[str, object]:
        value = part.value
        if isinstance(value, Tensor):
            check_frames(value)
        elif isinstance(value, str):
            raise _words(part)
        return {"type": "image", "image": str(value) if isinstance(value, File) else value, **part.facts}

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        if not isinstance(settings, ImageSettings):
            raise ModelError("pictures are decoded by ImageSettings", got=type(settings).__name__)
        if rate is not None:
            raise ModelError("a picture has no rate", got=str(rate), fix="leave it out")
        return Content(modality="image", tensor=_pixels(part, settings))

    def save(self, part: Part, stem: Path) -> Path:
        suffix, data = ".png", None
        if isinstance(part.value, bytes | File):
            data = content(part)
            suffix = SUFFIXES[examine(io.BytesIO(data), name=_name(part))]
        file = stem.with_name(f"{stem.name}{suffix}")
        file.write_bytes(_png(part) if data is None else data)
        return file

    def show(self, part: Part) -> str:
        if isinstance(part.value, bytes | File):
            data = content(part)
            kind = MIME.get(examine(io.BytesIO(data), name=_name(part)))
            look = f'style="max-width: {_WIDEST}px"'
            if kind is not None:
                return _tag(data, kind, look)
        else:
            look = f'width="{_SHOWN}" style="image-rendering: pixelated"'
        return _tag(_png(part), MIME["PNG"], look)


def _tag(data: bytes, kind: str, look: str) -> str:
    # base64 has no character that HTML reads
    return f'<img alt="a picture" {look} src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _pixels(part: Part, settings: ImageSettings) -> Tensor:
    """The picture as ``c h w`` of uint8."""
    if isinstance(part.value, Tensor):
        pixels = frames_uint8(part.value)
        if (area := pixels.shape[1] * pixels.shape[2]) > settings.max_pixels:
            got = f"{area} pixels, at most {settings.max_pixels}"
            fix = "make it smaller, or raise max_pixels of the image settings"
            raise DataError("a picture of more pixels than the limit", field="image", got=got, fix=fix)
        return pixels
    if isinstance(part.value, str):
        raise _words(part)
    return decode(part, settings)


def _words(part: Part) -> DataError:
    fix = "give a tensor, encoded bytes or a file"
    return DataError("words are no picture", field="image", got=shown(part.value), fix=fix)


def _name(part: Part) -> str | None:
    return part.value.name if isinstance(part.value, File) else None


def _png(part: Part) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = rearrange(_pixels(part, ImageSettings(max_pixels=MOST_PIXELS)), "c h w -> h w c")
    Image.fromarray(pixels.contiguous().numpy()).save(file, format="PNG")
    return file.getvalue()
