"""Pictures that ask for more memory than they may have, and pictures damaged at random."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.samples import bmp, encode, gif, jpeg_of_size, photo, png, tiff, webp_header

MODALITY = ImageModality()


# --- memory ---------------------------------------------------------------------------------------

_CAP = 4_000_000
_BOMBS = """
import resource, sys
from pathlib import Path
from PIL import Image
from modalign.content import Part
from modalign.errors import DataError
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.samples import encode, photo
if sys.argv[2] == "unlimited":
    Image.MAX_IMAGE_PIXELS = None
modality, settings = ImageModality(), ImageSettings(max_pixels=CAP)
for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):  # loads the codecs
    modality.decode(Part(modality="image", value=encode(photo(), kind)), settings)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        modality.decode(Part(modality="image", value=file.read_bytes()), settings)
    except DataError:
        refused += 1
print(refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
""".replace("CAP", str(_CAP))


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small files that ask for much memory."""
    folder = tmp_path_factory.mktemp("bombs")
    flat = Image.new("L", (10_000, 10_000))  # small files of 100 million pixels, under Pillow's own limit
    made = [
        encode(flat, "PNG"),
        encode(flat, "GIF"),
        encode(flat, "TIFF", compression="tiff_deflate"),
        gif(1, 1, frame=(10_000, 10_000), dispose=2),
        webp_header(10_000, 10_000),
        png(40_000, 40_000, b""),
        gif(65_535, 65_535),
        webp_header(1 << 24, 1 << 24),
        tiff(t256=40_000, t257=40_000),
        tiff(t256=40_000, t257=40_000, t322=40_000, t323=40_000, t324=8, t325=16),
        tiff(t259=5, t322=1 << 20, t323=1 << 20, t324=8, t325=16),
        bmp(40_000, 40_000),
        jpeg_of_size(65_000, 65_000),
    ]
    for number, data in enumerate(made):
        (folder / f"{number}.bin").write_bytes(data)
    return folder


@pytest.mark.parametrize("pillow", ["limited", "unlimited"])
def test_bombs_are_refused_without_the_memory_they_ask_for(pillow: str, bombs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS, str(bombs), pillow], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refused_number, rise = (int(one) for one in done.stdout.split())
    assert refused_number == len(list(bombs.iterdir()))
    # 100 million pixels take 100 MB at the least; what the limit allows takes 4 million * 3 bytes
    assert rise <= _CAP * 3 + (64 << 20)


# --- damage ---------------------------------------------------------------------------------------

_KINDS: list[tuple[str, dict[str, object]]] = [
    ("JPEG", {"quality": 80}),
    ("JPEG", {"progressive": True, "exif": Image.Exif()}),
    ("PNG", {}),
    ("WEBP", {"quality": 70}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The content with bytes changed, cut out, doubled or cut off; more often near its header."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = min(int(rng.random() ** 2 * len(made)), max(len(made) - 1, 0))
        match rng.randrange(5):
            case 0:
                made[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                made[at : at + 4] = struct.pack(">I", rng.choice([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1]))
            case 2:
                del made[at : at + rng.randint(1, 40)]
            case 3:
                made[at:at] = made[at : at + rng.randint(1, 40)]
            case _:
                del made[max(at, 8) :]
    return bytes(made)


def attempt(part: Part, settings: ImageSettings) -> Tensor | DataError:
    """The pixels or the error; any other exception is a failure of the test."""
    try:
        return MODALITY.decode(part, settings).tensor
    except DataError as error:
        return error


@pytest.mark.parametrize("index", range(len(_KINDS)))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of what it passes over, such as odd EXIF entries
def test_damaged_files_are_decoded_or_refused_and_nothing_else(index: int) -> None:
    kind, more = _KINDS[index]
    data, settings = encode(photo(), kind, **more), ImageSettings(max_pixels=1_000_000)
    outcomes = {"decoded": 0, "refused": 0}
    for seed in range(40):
        content = damaged(data, random.Random(f"{index}/{seed}"))
        found = attempt(Part(modality="image", value=content), settings)
        if isinstance(found, DataError):
            assert found.field == "image"
            assert not re.search(r"0x[0-9a-f]{6}|BytesIO", str(found)), str(found)
            outcomes["refused"] += 1
        else:
            assert found.shape[0] == 3
            assert found.numel() <= 3_000_000
            outcomes["decoded"] += 1
    assert outcomes["refused"] >= 10, outcomes


def test_content_that_is_all_noise_behind_a_signature_is_refused() -> None:
    for start in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\0\0\0WEBPVP8 ", b"GIF89a", b"BM", b"II*\0"):
        for seed in range(5):
            noise = random.Random(seed).randbytes(500)
            found = attempt(Part(modality="image", value=start + noise), ImageSettings(max_pixels=1_000_000))
            assert isinstance(found, DataError)
            assert found.field == "image"
