"""What a block may hold for a picture, its way back into a block, and what is saved and shown."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError, ModelError
from modalign.files import File
from modalign.roles import MediaSettings
from modalign.testing.markup import unsafe
from modalign_image.config import ImageSettings
from modalign_image.frames import array_frames, check_frames, frames_uint8
from modalign_image.modality import ImageModality
from modalign_image.samples import encode, photo

MODALITY = ImageModality()
DATA = encode(photo(), "PNG")
PIXELS = torch.from_numpy(np.array(photo())).permute(2, 0, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/one.png").write_bytes(DATA)
    return tmp_path


def read(root: Path | None = None, **block: object) -> Part:
    return MODALITY.read({"type": "image", **block}, root=root)


def decoded(part: Part, **settings: object) -> Tensor:
    content = MODALITY.decode(part, ImageSettings.model_validate(settings))
    assert content.modality == "image"
    return content.tensor


VALUES: dict[str, Mapping[str, object]] = {
    "bytes": {"image": DATA},
    "bytes that can change": {"image": bytearray(DATA)},
    "a view of bytes": {"image": memoryview(DATA)},
    "the name of a file": {"image": "cats/one.png"},
    "bytes as data sets hold them": {"image": {"bytes": DATA, "path": None}},
    "bytes and where they came from": {"image": {"bytes": DATA, "path": "/home/somebody/one.png"}},
    "a path as data sets hold it": {"image": {"bytes": None, "path": "cats/one.png"}},
    "a path alone": {"image": {"path": "cats/one.png"}},
    "the key path": {"path": "cats/one.png"},
    "the key bytes": {"bytes": DATA},
    "the keys of a data set": {"bytes": DATA, "path": "anything at all"},
    "a tensor of uint8": {"image": PIXELS},
    "a tensor of floats": {"image": PIXELS.float() / 255},
    "a tensor of doubles": {"image": PIXELS.double() / 255},
    "an array": {"image": np.array(photo())},
    "a picture of pillow": {"image": photo()},
    "a file of pillow": {"image": Image.open(io.BytesIO(DATA))},
}


@pytest.mark.parametrize("case", VALUES)
def test_every_kind_of_value_gives_the_same_pixels(case: str, root: Path) -> None:
    found = decoded(read(root, **VALUES[case]))
    assert found.dtype == torch.uint8
    assert found.equal(PIXELS)


@pytest.mark.parametrize("case", VALUES)
def test_a_block_of_a_part_is_read_back_as_the_same_part(case: str, root: Path) -> None:
    part = read(root, **VALUES[case])
    assert MODALITY.read(MODALITY.block(part), root=root) == part


def test_a_file_is_named_in_its_block_and_its_sha256_stays() -> None:
    part = Part(modality="image", value=File(root=Path("/data"), name="a/b.png"), facts={"sha256": "ab" * 32})
    assert MODALITY.block(part) == {"type": "image", "image": "a/b.png", "sha256": "ab" * 32}


def test_reading_decodes_nothing(root: Path) -> None:
    (root / "cut.png").write_bytes(DATA[: len(DATA) // 2])
    part = read(root, image="cut.png")  # its header is whole
    with pytest.raises(DataError, match="cut off"):
        decoded(part)


SHA = hashlib.sha256(DATA).hexdigest()


def test_an_object_says_its_own_sha256(root: Path) -> None:
    for item in ({"path": "cats/one.png"}, {"bytes": DATA, "path": "gone.png"}):
        part = read(root, image=item | {"sha256": SHA.upper()})
        assert part.facts == {"sha256": SHA}
        assert part == read(root, image=item, sha256=SHA) == read(root, image=item | {"sha256": SHA}, sha256=SHA)
        assert decoded(part).shape == PIXELS.shape
        assert read(root, image=item | {"sha256": None}).facts == {}
    with pytest.raises(DataError, match=rf"field=sha256: the content is not .*{SHA}.*{'0' * 64}"):
        read(image={"bytes": DATA, "sha256": "0" * 64})
    with pytest.raises(DataError, match=rf"field=sha256: the content is not .*one\.png.*{SHA}.*{'0' * 64}"):
        decoded(read(root, image={"path": "cats/one.png", "sha256": "0" * 64}))


def test_equal_content_is_equal_wherever_it_lies(root: Path) -> None:
    assert read(root, image="cats/one.png") == read(image=DATA)


@pytest.mark.parametrize(
    ("block", "field", "says"),
    [
        ({}, "image", "without a picture"),
        ({"image": None, "path": None}, "image", "without a picture"),
        ({"image": 3.5}, "image", "no picture"),
        ({"image": ["cats/one.png"]}, "image", "no picture"),
        ({"image": {}}, "image", "object with `bytes` or `path`"),
        ({"image": {"bytes": None, "path": None}}, "image", "object with `bytes` or `path`"),
        ({"image": {"url": "http://127.0.0.1/a.png"}}, "image", "object with `bytes` or `path`"),
        ({"image": {"bytes": "words"}}, "image", "must be encoded bytes"),
        ({"image": {"path": b"bytes"}}, "image", "must be the name of a file"),
        ({"image": {"path": 3}}, "image", "must be the name of a file"),
        ({"image": "missing.png"}, "image", "no such file"),
        ({"image": "../outside.png"}, "image", "may not leave"),
        ({"image": "http://127.0.0.1/a.png"}, "image", "not a URL"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "not a URL"),
        ({"path": "/etc/passwd"}, "path", "relative"),
        ({"path": b"bytes"}, "path", "must be the name"),
        ({"bytes": "words"}, "bytes", "must be encoded bytes"),
        ({"bytes": b"words"}, "bytes", "no picture of a known format"),
        ({"image": DATA, "path": "a.png"}, "path", "two fields"),
        ({"image": DATA, "bytes": DATA}, "bytes", "two fields"),
        ({"image": DATA, "caption": "x"}, "caption", "nothing reads"),
        ({"image": DATA, "sha256": "ab"}, "sha256", "64 hexadecimal digits"),
        ({"image": DATA, "sha256": 3}, "sha256", "64 hexadecimal digits"),
        ({"image": {"bytes": DATA, "sha256": "ab"}}, "sha256", "64 hexadecimal digits"),
        ({"image": {"sha256": "ab" * 32}}, "image", "object with `bytes` or `path`"),
        (
            {"image": {"bytes": DATA, "sha256": "ab" * 32}, "sha256": "cd" * 32},
            "sha256",
            "different things; found: .*ab.*",
        ),
        ({"image": PIXELS, "sha256": "ab" * 32}, "sha256", "of encoded content, not of pixels"),
        ({"image": PIXELS[0]}, "image", '"3 h w"'),
        ({"image": PIXELS.permute(1, 2, 0)}, "image", '"3 h w"'),
        ({"image": PIXELS[:, :0]}, "image", '"3 h w"'),
        ({"image": PIXELS.int()}, "image", "uint8, or floats"),
        ({"image": PIXELS.bool()}, "image", "uint8, or floats"),
        ({"image": PIXELS.float()}, "image", "between 0 and 1"),
        ({"image": PIXELS.float() / 255 - 0.5}, "image", "between 0 and 1"),
        ({"image": torch.full((3, 2, 2), float("nan"))}, "image", "finite"),
        ({"image": np.zeros((3, 4, 4), np.uint8)}, "image", '"h w 3" of uint8'),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "image", '"h w 3" of uint8'),
        ({"image": np.zeros((4, 4), np.uint8)}, "image", '"h w 3" of uint8'),
        ({"image": Image.new("I", (2, 2), 1 << 20)}, "image", "32-bit integers"),
        ({"image": Image.new("RGB", (0, 3))}, "image", "without pixels"),
    ],
)
def test_a_wrong_block_names_its_field(block: Mapping[str, object], field: str, says: str, root: Path) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(root, **block)
    assert caught.value.field == field
    assert str(caught.value).isprintable()


def test_a_file_needs_a_folder_of_files() -> None:
    for block in ({"image": "cats/one.png"}, {"path": "cats/one.png"}, {"image": {"path": "cats/one.png"}}):
        with pytest.raises(DataError, match=r"no folder of files is known.*data\.root"):
            read(None, **block)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_in_memory_waits_for_the_background_that_is_set(mode: str) -> None:
    made = Image.new("RGBA", (2, 1), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        made.info["transparency"] = made.getpixel((0, 0))
    part = read(image=made)
    assert decoded(part, background=(1, 2, 3))[:, 0, 0].tolist() == [1, 2, 3]
    assert decoded(part)[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_of_pillow_is_turned_upright(mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(encode(photo(6, 9).convert(mode), "PNG", exif=exif)))
    wanted = torch.from_numpy(np.rot90(np.array(photo(6, 9)), -1).copy()).permute(2, 0, 1)
    assert decoded(read(image=opened)).equal(wanted)


def test_an_array_that_a_caller_changes_later_is_not_the_part() -> None:
    own = np.array(photo())
    part = read(image=own)
    own[:] = 0
    assert decoded(part).equal(PIXELS)


def test_more_pixels_in_memory_than_the_limit_are_refused() -> None:
    with pytest.raises(DataError, match=r"field=image: .*960 pixels, at most 959"):
        decoded(read(image=PIXELS), max_pixels=959)
    assert decoded(read(image=PIXELS), max_pixels=960).equal(PIXELS)


def test_decoding_asks_for_its_own_settings_and_no_rate() -> None:
    part = read(image=DATA)
    with pytest.raises(ModelError, match=r"by ImageSettings; found: MediaSettings"):
        MODALITY.decode(part, MediaSettings())
    with pytest.raises(ModelError, match="no rate"):
        MODALITY.decode(part, ImageSettings(), rate=8.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_pixels": 0},
        {"max_pixels": 1 << 40},
        {"max_bytes": 1 << 40},
        {"background": (256, 0, 0)},
        {"background": (0, 0)},
        {"animated": "last"},
        {"formats": ("EPS",)},
        {"formats": ()},
        {"maxpixels": 3},
    ],
)
def test_settings_that_cannot_be_right_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageSettings.model_validate(wrong)


# --- saved and shown ------------------------------------------------------------------------------

KINDS = [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif")]


@pytest.mark.parametrize(("kind", "suffix"), KINDS)
def test_what_was_encoded_is_saved_as_it_is(kind: str, suffix: str, tmp_path: Path) -> None:
    data = encode(photo(), kind)
    (tmp_path / "wrongly.named").write_bytes(data)
    for number, part in enumerate((read(image=data), read(tmp_path, image="wrongly.named"))):
        file = MODALITY.save(part, tmp_path / f"part.{number}")
        assert file.name == f"part.{number}{suffix}"
        assert file.read_bytes() == data


def test_pixels_in_memory_are_saved_without_loss(tmp_path: Path) -> None:
    file = MODALITY.save(read(image=PIXELS), tmp_path / "part")
    assert file.name == "part.png"
    assert (np.array(Image.open(file)) == np.array(photo())).all()


@pytest.mark.parametrize(("kind", "mime"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif")])
def test_what_a_browser_shows_is_embedded_as_it_is(kind: str, mime: str, tmp_path: Path) -> None:
    import base64

    data = encode(photo(), kind)
    html = MODALITY.show(read(image=data))
    assert f'src="data:image/{mime};base64,{base64.b64encode(data).decode()}"' in html
    assert unsafe(html) is None
    (tmp_path / "x.png").write_bytes(data)
    assert MODALITY.show(read(tmp_path, image="x.png")) == html


@pytest.mark.parametrize("value", [PIXELS, PIXELS.float() / 255, encode(photo(), "TIFF")])
def test_what_no_browser_shows_is_embedded_as_png(value: object) -> None:
    html = MODALITY.show(read(image=value))
    assert 'src="data:image/png;base64,' in html
    assert unsafe(html) is None


def test_markup_that_claims_to_be_a_picture_is_not_shown() -> None:
    for value in (b"<svg onload=alert(1)>", b"<script>alert(1)</script>"):
        with pytest.raises(DataError, match="no picture of a known format"):
            MODALITY.show(Part(modality="image", value=value))


@pytest.mark.parametrize("what", ["block", "show", "decode", "save"])
def test_words_are_no_picture(what: str, tmp_path: Path) -> None:
    part = Part(modality="image", value="a cat")
    more = {"decode": (ImageSettings(),), "save": (tmp_path / "x",)}.get(what, ())
    with pytest.raises(DataError, match=r"field=image: words are no picture"):
        getattr(MODALITY, what)(part, *more)


# --- pixels in memory, for other plugins too ------------------------------------------------------


def test_frames_of_clips_are_checked_by_the_same_rules() -> None:
    clip = PIXELS.expand(4, *PIXELS.shape)
    settings = {"pattern": "t 3 h w", "field": "video", "what": "a clip"}
    assert frames_uint8(clip.float() / 255, **settings).equal(clip)
    assert frames_uint8(clip, **settings) is not None
    with pytest.raises(DataError, match=r'field=video: a clip must be "t 3 h w"'):
        frames_uint8(PIXELS, **settings)
    frames = np.stack([np.array(photo())] * 4)
    assert array_frames(frames, pattern="t h w 3", field="video", what="a clip").equal(clip)


def test_floats_that_round_to_a_level_are_no_mistake() -> None:
    # interpolation oversteps by rounding errors; half a level is 0.5 / 255 = 0.00196
    check_frames(torch.tensor([-0.0019, 0.5, 1.0019])[:, None, None])
    assert frames_uint8(torch.tensor([-0.0019, 0.5, 1.0019])[:, None, None]).flatten().tolist() == [0, 128, 255]
    with pytest.raises(DataError, match=r"values from 0 to 1\.002"):
        check_frames(torch.tensor([0.0, 0.5, 1.0021])[:, None, None])
