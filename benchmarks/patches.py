"""Times a JPEG's way to a vision tower's patches: Pillow and transformers' processor, beside ours.

    python benchmarks/patches.py
    python benchmarks/patches.py --rounds 101 --height 1080 --width 1920

Theirs is `Image.open(...).convert("RGB")` and the processor; ours is `ImageModality.decode`, with all of its checks, a
resize of the bytes as they lie in memory (channels last), and the op `patches`. Both give float32 patches of a picture
resized by the same antialiased bicubic filter. The last tables are what a user meets: the encoders `vision` and
`frames`, whose `prepare` makes a tower's input by the library's processor or by the op (`pixels`). Everything runs in
one process, rounds are interleaved and change their order, and ratios are medians of a round's own ratios.

h w pixels, p q pixels of a patch's sides.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor

from modalign.content import Part
from modalign.registry import registry
from modalign.roles import Content, Encoder, MediaSettings, Modality
from modalign_image.config import ImageSettings
from modalign_image.modality import ImageModality
from modalign_image.ops.patches import patches, reference
from modalign_image.testing import WIDTH, tiny_vision
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality
from modalign_video.writing import mp4

SIZE, PATCH = 448, 14
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = CLIPImageProcessor(size={"height": SIZE, "width": SIZE}, do_center_crop=False)
QWEN = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": SIZE * SIZE})
MODALITY, SETTINGS = ImageModality(), ImageSettings()
FRAMES = 8
TOWER = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}  # nothing runs it
CROPPED = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})

Step = Callable[[bytes], Tensor]


def jpeg(height: int, width: int) -> bytes:
    """A picture with edges, slopes and some noise, at quality 85."""
    rng = np.random.default_rng(0)
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    smooth = np.stack([down, right, np.sin(20 * down * right) / 2 + 0.5], -1) * 180
    blocks = np.kron(rng.integers(0, 60, (height // 40, width // 40, 3)), np.ones((40, 40, 1)))
    noise = rng.normal(0, 4, smooth.shape)
    picture = (smooth + blocks[:height, :width] + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return file.getvalue()


def theirs_plain(data: bytes) -> Tensor:
    values = CLIP(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")["pixel_values"]
    return rearrange(values, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def theirs_merged(data: bytes) -> Tensor:
    return QWEN(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")["pixel_values"][None]


def resized(data: bytes, size: tuple[int, int]) -> Tensor:
    """The decoded picture, ``1 3 h w`` of uint8."""
    pixels = MODALITY.decode(Part(modality="image", value=data), SETTINGS).tensor[None]
    return interpolate(pixels, size, mode="bicubic", antialias=True)


def ours(data: bytes, *, size: tuple[int, int], layout: str) -> Tensor:
    return patches(resized(data, size), patch=PATCH, mean=MEAN, std=STD, layout=layout)  # pyright: ignore[reportArgumentType]


def clip(picture: bytes) -> bytes:
    """Two seconds of H.264 in which the picture moves."""
    frame = MODALITY.decode(Part(modality="image", value=picture), SETTINGS).tensor
    return mp4(torch.stack([frame.roll(4 * number, -1) for number in range(2 * FRAMES)]), FRAMES)


def end_to_end(*, title: str, modality: Modality, settings: MediaSettings, data: bytes, name: str, rounds: int) -> None:
    """Encoded bytes to what an encoder hands its tower, by the library's processor and by the op."""

    def decode() -> Content:
        return modality.decode(Part(modality=modality.name, value=data), settings)

    def both(encoder: Encoder) -> Tensor:
        return encoder.prepare(decode()).tensors["pixel_values"]

    with TemporaryDirectory() as folder:
        tiny_vision(folder, "clip", vision_config=TOWER)
        CROPPED.save_pretrained(folder)
        processor, fused = (registry.encoder(name).load(folder, pixels=one) for one in ("processor", "fused"))
    apart = (both(processor) - both(fused)).abs().max().item()
    assert apart <= 1e-5, apart
    table(
        f"{title}, to {SIZE} by {SIZE}, encoder `{name}`; largest difference {apart:.1e}",
        {
            "decode + prepare, processor": partial(both, processor),
            "decode + prepare, fused": partial(both, fused),
            "decode": decode,
        },
        rounds,
    )
    content = decode()
    table(
        "prepare alone",
        {"processor": partial(processor.prepare, content), "fused": partial(fused.prepare, content)},
        rounds,
    )


def seconds(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; the order turns with the round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 3):
        names = list(steps)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            steps[name]()
            if number >= 3:  # the first rounds warm up
                found[name].append(time.perf_counter() - start)
    return found


def table(title: str, steps: Mapping[str, Callable[[], object]], rounds: int) -> None:
    found = seconds(steps, rounds)
    base = next(iter(found.values()))
    print(f"\n{title}\n{'':<34}{'ms':>8}{'times faster':>14}")
    for name, times in found.items():
        ratio = statistics.median(one / own for one, own in zip(base, times, strict=True))
        print(f"{name:<34}{statistics.median(times) * 1e3:>8.2f}{ratio:>14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--clip-rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = jpeg(arguments.height, arguments.width)
    grid = QWEN(images=Image.open(io.BytesIO(data)), return_tensors="pt")["image_grid_thw"][0].tolist()
    merged = (grid[1] * PATCH, grid[2] * PATCH)
    print(f"JPEG of {arguments.width} by {arguments.height}, {len(data) >> 10} KiB, {arguments.threads} thread(s)")
    for title, them, size, layout in (
        (f"to {SIZE} by {SIZE}, plain (CLIP)", theirs_plain, (SIZE, SIZE), "plain"),
        (f"to {merged[1]} by {merged[0]}, merged (Qwen2-VL)", theirs_merged, merged, "merged"),
    ):
        us = partial(ours, size=size, layout=layout)
        apart = (them(data) - us(data)).abs().max().item()
        level = 1 / 255 / min(STD)
        assert apart < 1.01 * level, f"{apart} is more than one of 255 levels, {level}"
        table(
            f"{title}; largest difference {apart:.1e} (one level of 255 is {level:.1e})",
            {
                "Pillow + processor": partial(them, data),
                "ours": partial(us, data),
                "ours: decode": partial(MODALITY.decode, Part(modality="image", value=data), SETTINGS),
                "ours: decode + resize": partial(resized, data, size),
            },
            arguments.rounds,
        )
    end_to_end(
        title="one JPEG",
        modality=MODALITY,
        settings=SETTINGS,
        data=data,
        name="vision",
        rounds=arguments.rounds,
    )
    end_to_end(
        title=f"{FRAMES} frames of a clip",
        modality=VideoModality(),
        settings=VideoSettings(frames=FRAMES),
        data=clip(data),
        name="frames",
        rounds=arguments.clip_rounds,
    )
    pixels = resized(data, (SIZE, SIZE))
    table(
        f"the op alone, {SIZE} by {SIZE}",
        {
            "rescale, normalise, rearrange": partial(steps_apart, pixels),
            "patches": partial(reference, pixels, patch=PATCH, mean=MEAN, std=STD),
        },
        arguments.rounds,
    )


def steps_apart(pixels: Tensor) -> Tensor:
    """The same one after another."""
    mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))
    values = (pixels.float() / 255 - mean) / std
    return rearrange(values, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


if __name__ == "__main__":
    main()
