"""Pictures as a modality: tensors in memory for now, saved and shown as PNG.

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
from modalign.data.fields import block_value
from modalign.errors import DataError
from modalign.roles import Modality

_SHOWN = 160  #: pixels a small picture is shown at


@final
class ImageModality(Modality):
    """Pictures, ``3 h w`` of floats from 0 to 1.

    Only pictures in memory can be read yet; files and encoded bytes are refused in words.
    """

    name: ClassVar[str] = "image"
    blocks: ClassVar[tuple[str, ...]] = ("image",)
    columns: ClassVar[tuple[str, ...]] = ("image", "images")

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        part = _part(block_value(block, "image", "a picture"))
        _pixels(part)
        return part

    def block(self, part: Part) -> Mapping[str, object]:
        _pixels(part)
        return {"type": "image", "image": part.value}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.png")
        file.write_bytes(_png(part))
        return file

    def show(self, part: Part) -> str:
        data = base64.b64encode(_png(part)).decode()
        look = f'width="{_SHOWN}" style="image-rendering: pixelated"'
        return f'<img alt="a picture" {look} src="data:image/png;base64,{data}">'


def _part(value: object) -> Part:
    if not isinstance(value, Tensor):
        raise DataError(
            "this version reads pictures in memory only, not files or encoded bytes",
            field="image",
            got=type(value).__name__,
            fix="give a float tensor of shape (3, height, width) with values from 0 to 1",
        )
    return Part(modality="image", value=value)


def _pixels(part: Part) -> Tensor:
    """The picture as ``h w c`` of uint8."""
    value = _part(part.value).value
    assert isinstance(value, Tensor)
    if value.ndim != 3 or value.shape[0] != 3 or not value.is_floating_point() or not value.numel():
        raise DataError(
            'a picture must be "3 h w" of floats', field="image", got=f"{value.dtype} of shape {tuple(value.shape)}"
        )
    if not value.isfinite().all():
        raise DataError("a picture must hold finite numbers", field="image", got="NaN or infinity")
    return rearrange((value.detach().cpu().clamp(0, 1) * 255).round().byte(), "c h w -> h w c")


def _png(part: Part) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(_pixels(part).contiguous().numpy()).save(file, format="PNG")
    return file.getvalue()
