"""Public test doubles: encoded pictures, plain ones, and headers that promise what no one should allocate."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    """A picture in a file format."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def photo(height: int = 24, width: int = 40, *, seed: int = 0) -> Image.Image:
    """A smooth picture with some noise, in RGB."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    smooth = np.stack([down, right, 1 - down], -1) * 200
    return Image.fromarray((smooth + rng.integers(0, 40, smooth.shape)).astype(np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of raw scan lines: each a filter byte and its samples."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(data, 9)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(**tags: int) -> bytes:
    """The header of an uncompressed grey TIFF; ``tags`` by number, as `t256=40000`."""
    given = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16} | {
        int(name[1:]): value for name, value in tags.items()
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(given.items()))
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + struct.pack("<H", len(given)) + entries + bytes(4)


def gif(width: int, height: int, *, frame: tuple[int, int] | None = None, dispose: int = 0) -> bytes:
    """The header of a GIF with one frame, which may be larger than its screen, and no pixels."""
    across, down = frame or (width, height)
    control = b"!\xf9\x04" + struct.pack("<BHBx", dispose << 2, 10, 0)
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + control + b"," + struct.pack("<HHHHB", 0, 0, across, down, 0) + b"\x02\x02\x4c\x01\x00;"


def webp_header(width: int, height: int) -> bytes:
    """The header of an extended WebP with an animation, and no frame."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP of 24 bits, and no pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def jpeg_of_size(height: int, width: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    data = encode(photo(), "JPEG")
    at = data.index(b"\xff\xc0") + 5  # of the frame header: marker, length, precision, height, width
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def broken() -> dict[str, tuple[bytes, str]]:
    """Files that are no pictures, by what is wrong with each, and words of the error that says so."""

    def half(kind: str, **settings: object) -> bytes:
        data = encode(photo(), kind, **settings)
        return data[: len(data) // 2]

    return {
        "no bytes": (b"", "an empty file"),
        "words": (b"not a picture at all\n", "no picture of a known format"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        "fits": (b"SIMPLE  =                    T" + b" " * 2850, "FITS"),
        "a jpeg cut off": (half("JPEG"), "broken or cut off"),
        "a png cut off": (half("PNG"), "broken or cut off"),
        "a gif cut off": (half("GIF"), "broken or cut off"),
        "a webp cut off": (half("WEBP"), "broken|cut off"),
        "a bmp cut off": (half("BMP"), "broken or cut off"),
        "a tiff cut off": (half("TIFF", compression="tiff_deflate"), "broken"),
        "a png without width": (png(0, 5, b""), "broken|without pixels"),
        "a png bomb": (png(40_000, 40_000, b""), "more pixels than the limit"),
        "a jpeg that says it is huge": (jpeg_of_size(65_000, 65_000), "more pixels than the limit"),
        "a gif bomb": (gif(65_535, 65_535), "more pixels than the limit"),
        "a gif whose frame is the bomb": (gif(1, 1, frame=(60_000, 60_000), dispose=2), "more pixels than the limit"),
        "a webp bomb": (webp_header(1 << 24, 1 << 24), "more pixels than the limit"),
        "a bmp bomb": (bmp(40_000, 40_000), "more pixels than the limit"),
        "a tiff bomb of tiles": (
            tiff(t256=40_000, t257=40_000, t322=40_000, t323=40_000, t324=8, t325=16),
            "more pixels than the limit",
        ),
    }
