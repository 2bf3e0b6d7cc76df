"""The oracle world in clips: a disc of one colour that moves one way, 8 frames of 16 by 16 pixels.

Given the concept only where the disc starts is free.

t frames, k colours, h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from modalign.content import Part
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept
from modalign.world.packed import unpack
from modalign.world.painter import LESSON
from modalign_image.colours import NAMES, paint, strengths

FRAMES, SIZE = 8, 16
RATE = 8  #: frames per second
RADIUS = 2.5  #: pixels

_STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  #: pixels per frame, down and right
_MINIMUM = 8  #: pixels of a disc
_NEAR = 4  #: pixels from its centroid
_VALID = 6  #: frames in which the disc must be seen
_SLOWEST = 0.5  #: pixels per frame


@final
class VideoDepiction(Depiction):
    """A moving disc, ``8 3 16 16`` of float32 from 0 to 1.

    What a concept leaves open is chosen by the seed. Reads exactly what it depicts, after 8-bit rounding, and with
    Gaussian noise of standard deviation 0.1 added; a disc that stands still, moves askew or changes colour is
    unreadable.

    >>> clip = VideoDepiction()
    >>> concept = Concept(colour="yellow", motion="up")
    >>> clip.read(clip.depict(concept)) == concept
    True
    """

    modality: ClassVar[str] = "video"
    attributes: ClassVar[frozenset[str]] = frozenset({"colour", "motion"})
    lesson: ClassVar[Mapping[str, object]] = LESSON

    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        random = Random(f"video/{seed}")
        free = {name: random.choice(VALUES[name]) for name in sorted(self.attributes)}
        whole = Concept.of({**free, **concept.only(self.attributes).said})
        steps = _STEPS[cast(str, whole.motion)]
        # along its way it starts near the edge it leaves, so that seven steps fit; across it, anywhere inside
        starts = [
            random.uniform(3.5, 5.0)
            if step > 0
            else SIZE - random.uniform(3.5, 5.0)
            if step < 0
            else random.uniform(5, 11)
            for step in steps
        ]
        centres = [
            tuple(start + step * frame for start, step in zip(starts, steps, strict=True)) for frame in range(FRAMES)
        ]
        return Part(
            modality=self.modality,
            value=torch.stack([paint(_disc(down, right), cast(str, whole.colour)) for down, right in centres]),
        )

    def student(self, folder: Path, *, seed: int = 0) -> Path:
        from modalign.integrations.painter import save_painter
        from modalign_video.painter import VideoCanvas

        return save_painter(folder, self, VideoCanvas(), seed=seed)

    def taught(self, folder: Path) -> Path:
        return unpack(Path(__file__).parent / "taught", folder)

    def read(self, part: Part) -> Concept | None:
        clip = part.value
        if not isinstance(clip, Tensor) or clip.shape != (FRAMES, 3, SIZE, SIZE) or not clip.is_floating_point():
            return None
        if not clip.isfinite().all():
            return None
        strength = torch.stack([strengths(frame) for frame in clip.detach().float().cpu()])  # t k h w
        seen = strength.amax(1) > 0.5  # t h w
        centres = {frame: centre for frame, mask in enumerate(seen) if (centre := _centre(mask)) is not None}
        if len(centres) < _VALID:
            return None
        sums = (strength * seen[:, None]).sum((0, 2, 3))  # k
        number = int(sums.argmax())
        motion = _motion(torch.tensor(list(centres), dtype=torch.float32), torch.stack(list(centres.values())))
        if motion is None or sums[number] < 0.8 * sums.sum():
            return None
        return Concept(colour=NAMES[number], motion=motion)


def _disc(down: float, right: float) -> Tensor:
    """The share of each pixel that a disc covers, ``h w``, its edge one pixel soft."""
    at = torch.arange(SIZE) + 0.5
    away = torch.hypot(at[:, None] - down, at[None, :] - right)
    return (RADIUS + 0.5 - away).clamp(0, 1)


def _centre(mask: Tensor) -> Tensor | None:
    """The centroid of a frame's disc, down and right; None where what is seen is no disc."""
    pixels = mask.nonzero().float()
    if len(pixels) < _MINIMUM:
        return None
    centre = pixels.mean(0)
    near = torch.linalg.vector_norm(pixels - centre, dim=-1) <= _NEAR
    return pixels[near].mean(0) if near.float().mean() >= 0.7 else None


def _motion(frames: Tensor, centres: Tensor) -> str | None:
    """Which way the centroids move, by least squares; None where they stand still or move askew."""
    time = frames - frames.mean()
    down, right = ((time[:, None] * centres).sum(0) / time.square().sum()).tolist()
    along, across = max(abs(down), abs(right)), min(abs(down), abs(right))
    if along < _SLOWEST or along < 2 * across:
        return None
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"
