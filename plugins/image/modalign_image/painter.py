"""The oracle world's pictures in patches, for the tiny model that learns to make them.

b samples, c channels, h w pixels, n patches, p values of a patch.
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
from modalign_image.world import SIZE

_HIGH, _WIDE = 4, 16  #: pixels of a patch: things stand in the middle of a half, at any height


@final
class ImageCanvas(Canvas):
    """Pictures ``3 32 32`` in strips of 4 by 16 pixels."""

    latents, width = 40, 128

    def fitted(self, content: Content) -> Tensor:
        if content.tensor.shape != (3, SIZE, SIZE):
            raise DataError(
                f"this tiny model makes pictures of {SIZE} by {SIZE} pixels",
                field="image",
                got=str(tuple(content.tensor.shape)),
                fix="give pictures of the oracle world, or train a real generator",
            )
        return content.tensor.float() / 255

    def patches(self, media: Tensor) -> Tensor:
        return rearrange(media, "b c (h y) (w x) -> b (h w) (c y x)", y=_HIGH, x=_WIDE)

    def parts(self, patches: Tensor) -> list[Part]:
        whole = rearrange(patches, "b (h w) (c y x) -> b c (h y) (w x)", h=SIZE // _HIGH, c=3, y=_HIGH)
        return [Part(modality="image", value=one) for one in whole.clamp(0, 1)]


@final
class ImagePainterLoader(PainterLoader):
    """Painters of pictures."""

    modality: ClassVar[str] = "image"
    canvas: ClassVar[type[Canvas]] = ImageCanvas
