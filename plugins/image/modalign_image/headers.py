"""What an encoded picture is, and how large, from its first bytes.

Pillow knows the size of most formats before it takes memory; WebP's and GIF's decoders take it when they are opened,
so for these two the size is read here.

h w pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO, Final, cast

from modalign_image.config import Format

HEAD: Final = 64  #: bytes that `sniff` wants

_MAGIC: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_OTHERS: Final = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"SIMPLE  =", "FITS"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML, perhaps SVG"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\x01\0", "an icon"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"RIFF", "a RIFF file, but no WebP"),
)

SUFFIXES: Final[Mapping[Format, str]] = MappingProxyType(
    {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
)

#: formats that every browser shows
MIME: Final[Mapping[Format, str]] = MappingProxyType(
    {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
)


def sniff(head: bytes) -> Format | None:
    """The format that a file's first bytes say; its name says nothing.

    >>> sniff(b"GIF89a...")
    'GIF'
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def looks_like(head: bytes) -> str:
    """What something that is no picture of a known format looks like, for a message."""
    if head[4:8] == b"ftyp":
        return "HEIC, AVIF or a video"
    start = head.lstrip().lower()
    found = next((name for magic, name in _OTHERS if start.startswith(magic.lower())), None)
    if found is None and head.isascii() and head.decode("ascii").replace("\n", " ").strip().isprintable():
        found = "plain text"
    return found or f"bytes that begin with {head[:8].hex(' ')}"


def canvas(file: BinaryIO, name: Format) -> tuple[int, int] | None:
    """Height and width of the memory that opening a WebP or a GIF takes; None where its header is broken."""
    file.seek(0)
    try:
        return _webp(file.read(30)) if name == "WEBP" else _gif(file)
    except (struct.error, IndexError):
        return None


def _webp(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", head, 26)
            return height & 0x3FFF, width & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        case b"VP8X" if len(head) == 30:
            return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    return None


def _gif(file: BinaryIO) -> tuple[int, int] | None:
    width, height, flags = cast("tuple[int, int, int]", struct.unpack("<6xHHB2x", file.read(13)))
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)  # the palette
    while mark := file.read(1):
        if mark == b"!":
            file.seek(1, 1)
            while (size := file.read(1)) and size != b"\0":
                file.seek(size[0], 1)
        elif mark == b",":
            left, top, across, down = struct.unpack("<HHHH", file.read(8))
            return max(height, top + down), max(width, left + across)  # a frame may stick out of its screen
        elif mark == b";":
            return None
    return None
