"""Broken and hostile pictures: each a `DataError` that names field and file, and none takes the memory it asks for."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import pytest
from PIL import Image, ImageFile

from modalign.content import Part
from modalign.errors import ConfigError, DataError
from modalign.files import File
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.samples import bmp, chunk, encode, gif, jpeg_of_size, photo, png, tiff, webp_header

MODALITY = ImageModality()


@final
@dataclass(frozen=True, kw_only=True)
class Bad:
    """Content, the settings it is decoded with, and what the error says."""

    data: bytes | Callable[[], bytes]
    says: str
    settings: Mapping[str, object] = field(default_factory=dict)


def cut(kind: str, keep: float, **more: object) -> bytes:
    data = encode(photo(), kind, **more)
    return data[: int(len(data) * keep)]


def huffman_broken() -> bytes:
    """A JPEG whose Huffman table has more codes than there are."""
    data = bytearray(encode(photo(), "JPEG"))
    at = data.index(b"\xff\xc4") + 5  # after the marker, its length and the table's class
    data[at : at + 16] = b"\xff" * 16
    return bytes(data)


def bad_crc() -> bytes:
    data = encode(photo(), "PNG")
    at = data.index(b"IHDR")
    return data[: at + 17] + b"\0\0\0\0" + data[at + 21 :]


def many_frames() -> bytes:
    frame = Image.new("L", (2, 2), 3)
    return encode(frame, "GIF", save_all=True, append_images=[Image.new("L", (2, 2), n % 256) for n in range(300)])


LIMIT = "more pixels than the limit"
TABLE: dict[str, Bad] = {
    "no bytes": Bad(data=b"", says="an empty file is no picture"),
    "one byte": Bad(data=b"\xff", says="no picture of a known format"),
    "words": Bad(data=b"not a picture at all\n", says="known format; found: .*plain text"),
    "svg": Bad(data=b'<svg xmlns="http://www.w3.org/2000/svg"/>', says="found: .*SVG"),
    "svg with a declaration": Bad(data=b'<?xml version="1.0"?><svg/>', says="XML, perhaps SVG"),
    "a web page": Bad(data=b"<!DOCTYPE html><html></html>", says="a web page"),
    "pdf": Bad(data=b"%PDF-1.7\n%\xe2\xe3", says="a PDF document"),
    "eps": Bad(data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", says="PostScript"),
    "eps for dos": Bad(data=b"\xc5\xd0\xd3\xc6" + bytes(30), says="PostScript"),
    "fits": Bad(data=b"SIMPLE  =                    T" + b" " * 2850, says="FITS"),
    "heic": Bad(data=b"\0\0\0\x18ftypheic" + bytes(16), says="HEIC"),
    "a git lfs pointer": Bad(data=b"version https://git-lfs.github.com/spec/v1\n", says="Git LFS pointer"),
    "a zip": Bad(data=b"PK\x03\x04" + bytes(40), says="a ZIP archive"),
    "a sound": Bad(data=b"RIFF\x24\0\0\0WAVEfmt ", says="no WebP"),
    "an icon": Bad(data=b"\0\0\x01\0\x01\0" + bytes(40), says="an icon"),
    "ppm": Bad(data=b"P6 1 1 255\n\xff\0\x80", says="known format"),
    "a png bomb": Bad(data=png(40000, 40000, b""), says=LIMIT),
    "a png of the largest sides": Bad(data=png(2**31 - 1, 2**31 - 1, b""), says=LIMIT),
    "a png without width": Bad(data=png(0, 5, b""), says="broken|without pixels"),
    "a png over the limit by one": Bad(data=png(11, 1, bytes(34)), says=LIMIT, settings={"max_pixels": 10}),
    "a png with a wrong checksum": Bad(data=bad_crc(), says="broken"),
    "a png of an unknown depth": Bad(data=png(1, 1, b"\0\0", depth=3), says="broken"),
    "a png whose data are no zlib": Bad(
        data=png(9, 9, bytes(9 * 28)).replace(zlib.compress(bytes(9 * 28), 9)[:2], b"xx"), says="broken or cut off"
    ),
    "a png with a text bomb": Bad(
        data=lambda: png(1, 1, bytes(4), before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26), 9))),
        says="broken or cut off",
    ),
    "half a png": Bad(data=cut("PNG", 0.5), says="broken or cut off"),
    "a png's signature": Bad(data=b"\x89PNG\r\n\x1a\n", says="broken"),
    "half a jpeg": Bad(data=cut("JPEG", 0.6), says="broken or cut off"),
    "a jpeg's first bytes": Bad(data=b"\xff\xd8\xff\xe0\0\x10JFIF", says="broken"),
    "a jpeg with a broken code table": Bad(data=huffman_broken(), says="broken or cut off"),
    "a jpeg that says it is huge": Bad(data=jpeg_of_size(65000, 65000), says=LIMIT),
    "a gif bomb": Bad(data=gif(65535, 65535), says=LIMIT),
    "a gif whose frame is the bomb": Bad(data=gif(1, 1, frame=(60000, 60000), dispose=2), says=LIMIT),
    "a gif without a frame": Bad(data=b"GIF89a\x01\0\x01\0\0\0\0;", says="header is broken"),
    "half a gif": Bad(data=cut("GIF", 0.6), says="broken or cut off"),
    "a gif of many frames": Bad(data=many_frames, says="several frames", settings={"animated": "error"}),
    "a webp bomb": Bad(data=webp_header(1 << 24, 1 << 24), says=LIMIT),
    "a webp bomb under pillow's limit": Bad(data=webp_header(9000, 9000), says=LIMIT),
    "a webp without a frame": Bad(data=webp_header(4, 4), says="broken"),
    "a webp's first bytes": Bad(data=b"RIFF\x10\0\0\0WEBPVP8 ", says="header is broken"),
    "half a webp": Bad(data=cut("WEBP", 0.5), says="broken|cut off"),
    "a tiff bomb": Bad(data=tiff(t256=40000, t257=40000), says=LIMIT),
    "a tiff bomb of tiles": Bad(data=tiff(t256=40000, t257=40000, t322=40000, t323=40000, t324=8, t325=16), says=LIMIT),
    "a tiff with a huge tile": Bad(
        data=tiff(t259=5, t322=1 << 20, t323=1 << 20, t324=8, t325=16), says="broken or cut off|more pixels"
    ),
    "a tiff with missing strips": Bad(data=tiff(t256=400, t257=400, t278=400), says="broken or cut off"),
    "a tiff that points to nothing": Bad(data=b"II*\0\xff\xff\xff\x7f", says="broken"),
    "half a tiff": Bad(data=cut("TIFF", 0.5, compression="tiff_deflate"), says="broken"),
    "a bmp bomb": Bad(data=bmp(40000, 40000), says=LIMIT),
    "a bmp without pixels": Bad(data=bmp(9, 9), says="broken or cut off"),
    "half a bmp": Bad(data=cut("BMP", 0.5), says="broken or cut off"),
    "too many bytes": Bad(data=encode(photo(), "PNG"), says="larger than the limit", settings={"max_bytes": 100}),
    "a format that is not allowed": Bad(
        data=encode(photo(), "GIF"), says="GIF is not allowed", settings={"formats": ("PNG", "JPEG")}
    ),
}


def refused(part: Part, settings: ImageSettings) -> DataError:
    """The error of a part when it is decoded, whether or not reading it would have found it."""
    with pytest.raises(DataError) as caught:
        MODALITY.decode(part, settings)
    return caught.value


@pytest.mark.parametrize("name", TABLE)
def test_a_bad_picture_is_an_error_that_names_field_and_file(name: str, tmp_path: Path) -> None:
    bad = TABLE[name]
    data = bad.data() if callable(bad.data) else bad.data
    settings = ImageSettings.model_validate(bad.settings)
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/one.png").write_bytes(data)
    error = refused(Part(modality="image", value=data), settings)
    filed = refused(Part(modality="image", value=File(root=tmp_path, name="cats/one.png")), settings)
    for one in (error, filed):
        assert one.field == "image"
        assert re.search(bad.says, str(one)), str(one)
        assert not re.search(r"0x[0-9a-f]{6}|BytesIO|PIL\.|Traceback", str(one)), str(one)
        assert one.fix, str(one)
        assert len(str(one)) < 500
    assert "cats/one.png" in str(filed)


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 25


ABSURD = ("no bytes", "words", "pdf", "a png bomb", "a gif bomb", "a webp bomb", "a bmp bomb", "a tiff bomb", "an icon")


@pytest.mark.parametrize("name", ABSURD)
def test_what_is_absurd_is_found_when_it_is_read(name: str, tmp_path: Path) -> None:
    data = TABLE[name].data
    assert isinstance(data, bytes)
    (tmp_path / "one.png").write_bytes(data)
    for value in (data, "one.png"):
        with pytest.raises(DataError, match=r"^field=image: ") as caught:
            MODALITY.read({"type": "image", "image": value}, root=tmp_path)
        assert value is data or "one.png" in str(caught.value)


def test_another_content_than_the_sha256_says_is_refused(tmp_path: Path) -> None:
    data, other = encode(photo(), "PNG"), encode(photo(seed=1), "PNG")
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "one.png").write_bytes(data)
    block = {"type": "image", "image": "one.png", "sha256": digest.upper()}
    part = MODALITY.read(block, root=tmp_path)
    assert MODALITY.decode(part, ImageSettings()).tensor.shape == (3, 24, 40)
    (tmp_path / "one.png").write_bytes(other)
    wanted = rf"^field=sha256: the content is not .*one\.png.*{hashlib.sha256(other).hexdigest()}.*{digest}"
    with pytest.raises(DataError, match=wanted):
        MODALITY.decode(part, ImageSettings())
    with pytest.raises(DataError, match=r"^field=sha256: the content is not"):
        MODALITY.read({"type": "image", "image": other, "sha256": digest}, root=None)


@pytest.mark.parametrize("data", [jpeg_of_size(4000, 40), png(9, 9, bytes(3 * 28))], ids=["jpeg", "png"])
def test_damage_that_no_decoder_sees_is_caught_by_the_sha256(data: bytes) -> None:
    # a JPEG whose header says more rows than its scan has before the end mark; a PNG whose intact stream ends early
    assert MODALITY.decode(Part(modality="image", value=data), ImageSettings()).tensor.shape[0] == 3
    part = Part(modality="image", value=data, facts={"sha256": hashlib.sha256(encode(photo(), "JPEG")).hexdigest()})
    assert refused(part, ImageSettings()).field == "sha256"


def test_a_file_that_grows_past_the_limit_is_refused(tmp_path: Path) -> None:
    data = encode(photo(), "BMP")
    (tmp_path / "one.bmp").write_bytes(data)
    part = MODALITY.read({"type": "image", "image": "one.bmp"}, root=tmp_path)
    settings = ImageSettings(max_bytes=len(data))
    assert MODALITY.decode(part, settings).tensor.shape == (3, 24, 40)
    (tmp_path / "one.bmp").write_bytes(data + b"\0")
    assert "larger than the limit" in str(refused(part, settings))


# --- Pillow's switches ----------------------------------------------------------------------------


def test_limits_hold_where_pillow_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for name, bad in TABLE.items():
        if bad.says == LIMIT:
            assert isinstance(bad.data, bytes)
            error = refused(Part(modality="image", value=bad.data), ImageSettings.model_validate(bad.settings))
            assert LIMIT in str(error), name
    assert Image.MAX_IMAGE_PIXELS is None


def test_a_lower_limit_of_pillow_is_still_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    error = refused(Part(modality="image", value=encode(photo(), "PNG")), ImageSettings())
    assert LIMIT in str(error)


def test_nothing_is_decoded_while_pillow_hides_that_files_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for data in (cut("JPEG", 0.6), encode(photo(), "PNG")):
        with pytest.raises(ConfigError, match=r"LOAD_TRUNCATED_IMAGES is True.*set it back"):
            MODALITY.decode(Part(modality="image", value=data), ImageSettings())
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_decoding_leaves_pillows_switches_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    for bad in (TABLE["a png bomb"], TABLE["half a jpeg"]):
        assert isinstance(bad.data, bytes)
        refused(Part(modality="image", value=bad.data), ImageSettings())
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


# --- what is left behind ---------------------------------------------------------------------------


def test_standard_error_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("half a jpeg", "a tiff with a huge tile", "a tiff with missing strips", "half a webp", "half a png"):
        data = TABLE[name].data
        assert isinstance(data, bytes)
        refused(Part(modality="image", value=data), ImageSettings())
    assert capfd.readouterr().err == ""


def test_no_file_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encode(photo(), "PNG"))
    (tmp_path / "two.png").write_bytes(b"words")
    before = len(os.listdir("/proc/self/fd"))
    part = MODALITY.read({"type": "image", "image": "one.png"}, root=tmp_path)
    MODALITY.decode(part, ImageSettings())
    with pytest.raises(DataError):
        MODALITY.read({"type": "image", "image": "two.png"}, root=tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_that_a_caller_changes_later_are_not_those_of_the_part() -> None:
    own = bytearray(encode(photo(), "PNG"))
    part = MODALITY.read({"type": "image", "image": own}, root=None)
    own[:] = bytes(len(own))
    assert MODALITY.decode(part, ImageSettings()).tensor.any()
    assert Image.open(io.BytesIO(part.value if isinstance(part.value, bytes) else b"")).size == (40, 24)
