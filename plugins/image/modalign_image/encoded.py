"""Encoded pictures: read within limits, checked before anything is decoded, decoded without a surprise.

Pillow is given open files and bytes, never a name, and one format at a time, the one that the first bytes say. Its
switches for whole processes are neither set nor trusted: the limits are our own, and a process in which
`ImageFile.LOAD_TRUNCATED_IMAGES` is on decodes nothing, as it would get grey where a file is cut off.

What no decoder notices is decoded: a changed byte inside a JPEG's scan or a BMP's rows, an end mark that comes too
early with nothing missing behind it. Where that matters a row says the content's SHA-256.

h w pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from torch import Tensor

from modalign.content import Part
from modalign.errors import ConfigError, DataError
from modalign.files import File
from modalign.shown import printable, shown
from modalign_image.config import FORMATS, MOST_BYTES, MOST_PIXELS, Format, ImageSettings
from modalign_image.headers import HEAD, canvas, looks_like, sniff
from modalign_image.pixels import rgb

_ADDRESS = re.compile(r" (object )?at 0x[0-9a-fA-F]+")
_LONGEST = 160  #: characters of a decoder's own words


def examine(
    file: BinaryIO,
    *,
    name: str | None = None,
    field: str = "image",
    max_bytes: int = MOST_BYTES,
    max_pixels: int = MOST_PIXELS,
    formats: Sequence[Format] = FORMATS,
) -> Format:
    """The format of an encoded picture whose header is sound and within limits, else a `DataError`; decodes nothing.

    file: open; where it stands does not matter.
    name: of the file, for messages.
    max_bytes, max_pixels, formats: what is allowed; by default the most that any settings could allow.
    """
    from PIL import Image

    size = file.seek(0, os.SEEK_END)
    if not size:
        raise _refused("an empty file is no picture", name, field, "0 bytes", "remove it, or fetch it again")
    if size > max_bytes:
        raise _refused(
            "an encoded picture larger than the limit",
            name,
            field,
            f"{size} bytes, at most {max_bytes}",
            "make it smaller, or raise max_bytes of the image settings",
        )
    file.seek(0)
    head = file.read(HEAD)
    found = sniff(head)
    if found is None:
        fix = f"use one of {', '.join(FORMATS)}; the name's ending does not count"
        raise _refused("this is no picture of a known format", name, field, looks_like(head), fix)
    if found not in formats:
        raise _refused(f"{found} is not allowed", name, field, found, "convert it, or add it to formats")
    with decoding(name, field):
        if found in ("WEBP", "GIF"):
            area = canvas(file, found)
            if area is None:
                raise DataError("the header is broken", got=found, fix=_AGAIN)
        else:
            file.seek(0)
            image = Image.open(file, formats=[found])
            area = image.height, image.width
        check_area(area, max_pixels)
    return found


def content(part: Part, *, max_bytes: int = MOST_BYTES, field: str = "image") -> bytes:
    """The encoded bytes of a part, no more than allowed, and with the SHA-256 that its facts ask for."""
    name = None
    if isinstance(part.value, File):
        name = part.value.name
        with opened_file(part.value, field) as file:
            data = file.read(max_bytes + 1)
    else:
        assert isinstance(part.value, bytes)
        data = part.value
    if len(data) > max_bytes:
        fix = "make it smaller, or raise max_bytes of the image settings"
        got = f"more than {max_bytes} bytes"
        raise _refused("an encoded picture larger than the limit", name, field, got, fix)
    check_sha256(data, part.facts.get("sha256"), name=name)
    return data


def decode(part: Part, settings: ImageSettings, *, field: str = "image") -> Tensor:
    """The pixels of an encoded part, ``3 h w`` of uint8."""
    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigError(
            "pictures are not decoded while Pillow hides that files are cut off",
            got="PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True",
            fix="set it back to False; something in this process has switched it on",
        )
    name = part.value.name if isinstance(part.value, File) else None
    data = content(part, max_bytes=settings.max_bytes, field=field)
    found = examine(io.BytesIO(data), name=name, field=field, max_pixels=settings.max_pixels, formats=settings.formats)
    with decoding(name, field), Image.open(io.BytesIO(data), formats=[found]) as image:
        check_area((image.height, image.width), settings.max_pixels)
        # an MPO is a photograph with further views of it; they are no frames
        if settings.animated == "error" and image.format != "MPO" and getattr(image, "is_animated", False):
            raise DataError(
                "a picture of several frames or pages", got=found, fix="give one frame, or set animated: first"
            )
        return rgb(image, settings.background)


def opened_file(file: File, field: str = "image") -> BinaryIO:
    """The open file; errors name the field."""
    try:
        return file.open()
    except DataError as error:
        raise DataError(error.what, field=field, got=error.got, fix=error.fix) from error


def check_sha256(data: bytes, wanted: object, *, name: str | None = None) -> None:
    """Raise unless the bytes have this SHA-256; None asks for nothing."""
    if wanted is not None and (found := hashlib.sha256(data).hexdigest()) != wanted:
        what = "the content is not what its SHA-256 says"
        raise _refused(what, name, "sha256", found, f"fetch it again, or correct the row, which says {wanted}")


def check_area(area: tuple[int, int], max_pixels: int) -> None:
    """Raise unless a height and a width give at least one pixel and no more than allowed."""
    height, width = area
    if height < 1 or width < 1:
        raise DataError("a picture without pixels", got=f"{height} by {width}", fix=_AGAIN)
    if height * width > max_pixels:
        raise DataError(
            _TOO_LARGE,
            got=f"{height} by {width} = {height * width} pixels, at most {max_pixels}",
            fix=_SMALLER,
        )


@contextmanager
def decoding(name: str | None, field: str) -> Iterator[None]:
    """Within it whatever a decoder raises becomes a `DataError` that names file and field."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except DataError as error:
        raise _refused(error.what, name, field, error.got, error.fix) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refused(_TOO_LARGE, name, field, _words(error), _SMALLER) from error
    except UnidentifiedImageError as error:
        raise _refused("the header is broken", name, field, "the decoder does not know it", _AGAIN) from error
    except MemoryError as error:
        raise _refused("a picture that does not fit into memory", name, field, None, "make it smaller") from error
    except Exception as error:
        raise _refused("the picture is broken or cut off", name, field, _words(error), _AGAIN) from error


_AGAIN = "fetch it again, or remove the row"
_TOO_LARGE = "a picture of more pixels than the limit"
_SMALLER = "make it smaller, or raise max_pixels of the image settings"


def _words(error: Exception) -> str:
    said = printable(_ADDRESS.sub("", str(error))).strip()
    return said[:_LONGEST] or type(error).__name__


def _refused(what: str, name: str | None, field: str, got: object, fix: str | None) -> DataError:
    found = [one for one in (None if name is None else shown(name), None if got is None else str(got)) if one]
    return DataError(what, field=field, got=": ".join(found) or None, fix=fix)
