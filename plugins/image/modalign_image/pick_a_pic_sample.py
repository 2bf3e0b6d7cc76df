"""Small data sets in the public layout of Pick-a-Pic, made from the oracle world."""

from __future__ import annotations

from pathlib import Path
from random import Random

from einops import rearrange

from modalign.world.concept import concepts
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.samples import encode
from modalign_image.world import ImageDepiction

Row = dict[str, object]
_MODELS = ("CompVis/stable-diffusion-v1-4", "stabilityai/stable-diffusion-2-1")


def sample(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write `train.parquet` into a folder, its pictures in it; returns the file. Every fourth row is a tie."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "train.parquet"
    random = Random(f"pick-a-pic/{seed}")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([_row(at, random) for at in range(rows)]), file)
    return file


def pairs() -> list[Row]:
    """A pair with its pictures in memory: what the contract tries the format on."""
    return [_row(0, Random(0))]


def _row(number: int, random: Random) -> Row:
    first = 0.5 if number % 4 == 3 else float(random.random() < 0.5)
    names = [f"picture-{number}-{which}" for which in (0, 1)]
    best = "tie" if first == 0.5 else names[int(first == 0.0)]
    return {
        "are_different": first != 0.5,
        "best_image_uid": best,
        "caption": f"Two red circles, number {number}",
        "created_at": "2023-04-01T00:00:00",
        "has_label": True,
        "image_0_uid": names[0],
        "image_0_url": f"https://example.com/{names[0]}.jpg",
        "image_1_uid": names[1],
        "image_1_url": f"https://example.com/{names[1]}.jpg",
        "jpg_0": _jpg(random),
        "jpg_1": _jpg(random),
        "label_0": first,
        "label_1": 1.0 - first,
        "model_0": _MODELS[0],
        "model_1": _MODELS[1],
        "ranking_id": number,
        "user_id": random.randrange(100),
        "num_example_per_prompt": 1,
    }


def _jpg(random: Random) -> bytes:
    from PIL import Image

    depiction = ImageDepiction()
    part = depiction.depict(random.choice(list(concepts(depiction.attributes))), seed=random.randrange(1 << 16))
    pixels = rearrange(ImageModality().decode(part, ImageSettings()).tensor, "c h w -> h w c")
    return encode(Image.fromarray(pixels.contiguous().numpy()), "JPEG", quality=95)
