"""What a content block may hold for a picture, and the part it says."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor

from modalign.content import Part
from modalign.data.fields import string, take_over
from modalign.errors import DataError
from modalign.files import File
from modalign.shown import shown
from modalign_image.config import MOST_PIXELS, ImageSettings
from modalign_image.encoded import check_area, check_sha256, decoding, examine, opened_file
from modalign_image.frames import array_frames, check_frames
from modalign_image.pixels import rgb, rgba, transparent

if TYPE_CHECKING:
    from PIL import Image

_KEYS = ("image", "path", "bytes", "sha256")
_STORED = ("bytes", "path", "sha256")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_FIX = "give a file's name, encoded bytes, or a tensor '3 h w' of uint8 or of floats from 0 to 1"


def read_block(block: Mapping[str, object], *, root: Path | None) -> Part:
    """The part that a block says, its header checked and nothing decoded; else a `DataError` that names the field.

    block: `image`, or `path`, or `bytes` (which win over a path), and perhaps `sha256` of the encoded content, which an
        object in `image` may say instead.
    root: the folder that files must lie in; None allows no files.
    """
    given = {key: one for key, one in block.items() if key != "type" and one is not None}
    unknown = next((key for key in given if key not in _KEYS), None)
    if unknown is not None:
        fix = f"remove it; what is read is {', '.join(_KEYS)}"
        got = shown(given[unknown])
        raise DataError("a block of a picture with a field that nothing reads", field=unknown, got=got, fix=fix)
    if "image" in given:
        twice = next((key for key in ("path", "bytes") if key in given), None)
        if twice is not None:
            raise DataError("two fields that say the picture", field=twice, got=f"image and {twice}", fix="keep one")
        value, field = given["image"], "image"
        if isinstance(value, Mapping):
            take_over(given, value, "sha256")
    else:
        value, field = {key: given.get(key) for key in ("bytes", "path")}, "bytes" if "bytes" in given else "path"
        if all(one is None for one in value.values()):
            raise DataError("a block of a picture without a picture", field="image", got="null", fix=_FIX)
    facts = _facts(given.get("sha256"))
    held = stored(value, root=root, field=field)
    if held is None:
        if facts:
            fix = "remove it, or give the encoded content"
            got = shown(value)
            raise DataError("a SHA-256 is of encoded content, not of pixels", field="sha256", got=got, fix=fix)
        held = _pixels(value, field)
    if isinstance(held, bytes):
        examine(io.BytesIO(held), field=field)
        check_sha256(held, facts.get("sha256"))
    elif isinstance(held, File):
        with opened_file(held, field) as file:
            examine(file, name=held.name, field=field)
    return Part(modality="image", value=held, facts=facts)


def stored(value: object, *, root: Path | None, field: str) -> bytes | File | None:
    """Encoded content as a row holds it: bytes, or a file below the root; None where the value is neither.

    value: bytes; the name of a file; or a mapping with `bytes` and `path`, as data sets hold media, where bytes win.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return _of_mapping(cast("Mapping[str, object]", value), root, field)
    if not isinstance(value, str):
        return None
    name = string(value, field)
    if root is None:
        raise DataError(
            "a file is named where no folder of files is known",
            field=field,
            got=shown(name),
            fix="set data.root (root= in Python), or give encoded bytes",
        )
    return File(root=root, name=name)


def _of_mapping(value: Mapping[str, object], root: Path | None, field: str) -> bytes | File:
    unknown = next((key for key, one in value.items() if key not in _STORED and one is not None), None)
    data, path = value.get("bytes"), value.get("path")
    if unknown is not None or (data is None and path is None):
        raise DataError("expected an object with `bytes` or `path`", field=field, got=shown(dict(value)), fix=_FIX)
    chosen = path if data is None else data  # beside bytes a path only says where they came from
    if not isinstance(chosen, str if data is None else bytes | bytearray | memoryview):
        what = "`path` must be the name of a file" if data is None else "`bytes` must be encoded bytes"
        raise DataError(what, field=field, got=shown(chosen), fix=_FIX)
    held = stored(chosen, root=root, field=field)
    assert held is not None
    return held


def _facts(sha256: object) -> dict[str, str | float | bool]:
    if sha256 is None:
        return {}
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise DataError("a SHA-256 is 64 hexadecimal digits", field="sha256", got=shown(sha256), fix="correct the row")
    return {"sha256": sha256.lower()}


def _pixels(value: object, field: str) -> Tensor | bytes:
    """A picture in memory as a tensor; one with transparency as PNG, so that the background stays a setting."""
    if isinstance(value, Tensor):
        check_frames(value, field=field, fix=_FIX)
        return value
    if isinstance(value, np.ndarray):
        return array_frames(value, field=field)
    if _is_pillow(value):
        return _pillow(cast("Image.Image", value), field)
    raise DataError("this is no picture", field=field, got=shown(value), fix=_FIX)


def _is_pillow(value: object) -> bool:
    # by name: asking Pillow would import it for every row without pictures of its own
    return any(one.__module__ == "PIL.Image" and one.__name__ == "Image" for one in type(value).__mro__)


def _pillow(image: Image.Image, field: str) -> Tensor | bytes:
    with decoding(None, field):
        check_area((image.height, image.width), MOST_PIXELS)
        if transparent(image) and not image.mode.startswith("I;16"):
            file = io.BytesIO()
            rgba(image).save(file, format="PNG", exif=image.getexif())
            return file.getvalue()
        return rgb(image, ImageSettings().background).contiguous()
