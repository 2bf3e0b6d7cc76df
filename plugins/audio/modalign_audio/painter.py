"""The oracle world's tones in patches, for the tiny model that learns to make them.

b samples, n patches, p values of a patch.
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
from modalign_audio.world import RATE, SAMPLES

_PATCH = 200  #: samples: a twentieth of a second


@final
class AudioCanvas(Canvas):
    """Sounds ``1 4000`` in twentieths of their second."""

    latents = 16
    seconds = _PATCH / RATE

    def fitted(self, content: Content) -> Tensor:
        if content.tensor.shape != (1, SAMPLES):
            raise DataError(
                f"this tiny model makes sounds of one channel of {SAMPLES} samples",
                field="audio",
                got=str(tuple(content.tensor.shape)),
                fix="give sounds of the oracle world, or train a real generator",
            )
        return content.tensor.float()

    def patches(self, media: Tensor) -> Tensor:
        return rearrange(media, "b 1 (n p) -> b n p", p=_PATCH)

    def parts(self, patches: Tensor) -> list[Part]:
        return [Part(modality="audio", value=one) for one in rearrange(patches, "b n p -> b 1 (n p)").clamp(-1, 1)]


@final
class AudioPainterLoader(PainterLoader):
    """Painters of sounds."""

    modality: ClassVar[str] = "audio"
    canvas: ClassVar[type[Canvas]] = AudioCanvas
