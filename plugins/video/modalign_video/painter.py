"""The oracle world's clips in patches, for the tiny model that learns to make them.

b samples, t frames, c channels, h w pixels.
"""

from __future__ import annotations

from typing import ClassVar, final

from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError
from modalign.integrations.painter import PainterLoader
from modalign.roles import Content
from modalign.world.painter import Canvas
from modalign_video.world import FRAMES, RATE, SIZE


@final
class VideoCanvas(Canvas):
    """Clips ``8 3 16 16``, a frame a patch."""

    latents = 16
    seconds = 1 / RATE

    def fitted(self, content: Content) -> Tensor:
        if content.tensor.shape != (FRAMES, 3, SIZE, SIZE):
            raise DataError(
                f"this tiny model makes clips of {FRAMES} frames of {SIZE} by {SIZE} pixels",
                field="video",
                got=str(tuple(content.tensor.shape)),
                fix="give clips of the oracle world, or train a real generator",
            )
        return content.tensor.float() / 255

    def patches(self, media: Tensor) -> Tensor:
        return rearrange(media, "b t c h w -> b t (c h w)")

    def parts(self, patches: Tensor) -> list[Part]:
        whole = rearrange(patches, "b t (c h w) -> b t c h w", c=3, h=SIZE)
        return [Part(modality="video", value=one) for one in whole.clamp(0, 1)]


@final
class VideoPainterLoader(PainterLoader):
    """Painters of clips."""

    modality: ClassVar[str] = "video"
    canvas: ClassVar[type[Canvas]] = VideoCanvas
