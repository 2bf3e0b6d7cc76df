"""A processor's pixel values in one pass: its own resize and crop, then the fused op instead of its arithmetic.

b pictures or frames, c channels, h w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, Protocol, cast, final

import torch
from einops import rearrange
from torch import Tensor
from transformers import BaseImageProcessor

from modalign.errors import KernelUnavailable
from modalign_image.ops.patches import patches

Pixels = Literal["auto", "fused", "processor"]
Theirs = Callable[[Tensor], Mapping[str, Tensor]]

CHANNELS = 3  #: of every picture that is decoded
TOLERANCE = 1e-5  #: the most by which values may differ from the processor's
_FIRST = (33, 57)  #: pixels of the first picture that is tried

_log = logging.getLogger(__name__)


class _Processor(Protocol):
    """A processor of transformers, as far as those of pictures and those of clips are alike."""

    do_resize: bool | None
    do_center_crop: bool | None
    do_rescale: bool | None
    do_normalize: bool | None
    size: object
    crop_size: object
    resample: object
    rescale_factor: float
    image_mean: float | Sequence[float]
    image_std: float | Sequence[float]

    def resize(self, image: Tensor, size: object, resample: object) -> Tensor: ...

    def center_crop(self, image: Tensor, size: object) -> Tensor: ...


@final
class PixelValues:
    """What a processor makes of pictures that lie ready as bytes.

    It resizes them as they lie in memory, and decoded pictures lie channels last, where the library first copies them
    and resizes that more slowly.

    >>> from transformers import SiglipImageProcessor
    >>> make = PixelValues(SiglipImageProcessor(size={"height": 32, "width": 32}))
    >>> make(torch.zeros(1, 3, 40, 60, dtype=torch.uint8)).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.processor = own = cast(_Processor, processor)
        self.scale = own.rescale_factor if own.do_rescale else 1.0
        self.mean = _each(own.image_mean if own.do_normalize else 0.0)
        self.std = _each(own.image_std if own.do_normalize else 1.0)

    def takes(self, x: Tensor) -> bool:
        """Whether pictures ``... c h w`` are as they are decoded; the processor takes others too."""
        return x.dtype == torch.uint8 and x.ndim >= 3 and x.shape[-3] == CHANNELS

    def __call__(self, x: Tensor) -> Tensor:
        """Pixel values ``b c h w`` of uint8 pictures of one size."""
        own = self.processor
        if own.do_resize:
            x = own.resize(x, size=own.size, resample=own.resample)
        if own.do_center_crop:
            x = own.center_crop(x, own.crop_size)
        return patches(x, mean=self.mean, std=self.std, scale=self.scale, layout="whole")


def fused_values(
    asked: Pixels, processor: BaseImageProcessor, theirs: Theirs, *, name: str, frames: int
) -> PixelValues | None:
    """What makes the pixel values by the op; None where the processor is to make them.

    The op is taken only where both give the same for random pictures, smaller and larger than the tower's, upright and
    lying, of odd sizes.

    theirs: what the processor makes of ``b c h w``, by name.
    name: of the pixel values in it. frames: how many pictures are tried at once (b).
    """
    if asked == "processor":
        return None
    try:
        made = PixelValues(processor)
        reason = _difference(made, theirs, name, frames)
    except Exception as error:  # a processor of another kind raises what it likes
        made, reason = None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    kind = type(processor).__name__
    if reason is None:
        if asked == "auto":
            _announce("fused", f"it gives what {kind} gives")
        return made
    if asked == "fused":
        raise KernelUnavailable(
            f"pixels='fused' does not give what {kind} gives",
            where="pixels",
            got=reason,
            fix="pass pixels='auto' or 'processor'",
        )
    _announce("processor", f"fused does not give what {kind} gives: {reason}")
    return None


def _difference(made: PixelValues, theirs: Theirs, name: str, frames: int) -> str | None:
    """How the first random pictures differ that do; None where all agree."""
    random = torch.Generator().manual_seed(0)
    height, width = _FIRST
    shape = (frames, CHANNELS, height, width)
    wanted = theirs(torch.zeros(shape, dtype=torch.uint8)).get(name)
    h, w = _FIRST if wanted is None or wanted.ndim < 2 else wanted.shape[-2:]
    for height, width in (_FIRST, (2 * w + 3, h + 1), (h // 2 + 1, 2 * w + 1), (h, w)):
        last = torch.randint(256, (frames, height, width, CHANNELS), dtype=torch.uint8, generator=random)
        for x in (rearrange(last, "b h w c -> b c h w"), rearrange(last, "b h w c -> b c h w").contiguous()):
            given = theirs(x)
            if set(given) != {name}:
                return f"it makes {', '.join(sorted(given))}"
            wanted, found = given[name], made(x)
            if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
                return f"{wanted.dtype} {tuple(wanted.shape)}, not {found.dtype} {tuple(found.shape)}"
            if not (apart := (wanted - found).abs().max().item()) <= TOLERANCE:
                return f"pictures of {height} by {width} differ by {apart:.1e}"
    return None


def _each(value: float | Sequence[float]) -> list[float]:
    return [float(value)] * CHANNELS if isinstance(value, int | float) else [float(one) for one in value]


@cache
def _announce(taken: str, reason: str) -> None:
    _log.info("pixels='auto' takes '%s': %s", taken, reason)
