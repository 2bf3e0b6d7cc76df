"""Ways in which a clip gets worse: blur, noise, compression, lost frames, wrong colours, lost detail, lost contrast.

Each takes frames and a source of chance, and gives as many frames of the same size; how strong it is, is drawn.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from modalign.content import Part
from modalign_video.config import VideoSettings
from modalign_video.decoding import decode
from modalign_video.writing import mp4

Distortion = Callable[[Tensor, Random], Tensor]

_RATE: Final = 25  #: frames per second that clips are compressed at
_VISIBLE: Final = 1.0  #: least mean difference, in levels of 255


def distort(kind: str, frames: Tensor, *, seed: int = 0) -> Tensor:
    """Frames made worse in one way, uint8 ``t 3 h w`` like those given.

    kind: a key of `DISTORTIONS`.
    seed: of how strong it is, and of what it draws.

    >>> clip = torch.arange(4 * 3 * 16 * 16).reshape(4, 3, 16, 16).byte()
    >>> distort("blur", clip).shape, distort("blur", clip).dtype
    (torch.Size([4, 3, 16, 16]), torch.uint8)
    """
    if kind not in DISTORTIONS:
        msg = f"no distortion {kind!r}; there are {', '.join(DISTORTIONS)}"
        raise ValueError(msg)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
        msg = f'frames are uint8 "t 3 h w", not {frames.dtype} {tuple(frames.shape)}'
        raise ValueError(msg)
    return DISTORTIONS[kind](frames, Random(f"{kind}/{seed}"))


def visible(before: Tensor, after: Tensor) -> bool:
    """Whether two clips differ by more than a level of 255 in the mean: freezing what stands still changes nothing."""
    return bool((before.float() - after.float()).abs().mean() >= _VISIBLE)


def blur(frames: Tensor, random: Random) -> Tensor:
    """Gaussian blur of 1.2 to 2.5 pixels."""
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(frames, kernel_size=[11, 11], sigma=[random.uniform(1.2, 2.5)])


def noise(frames: Tensor, random: Random) -> Tensor:
    """Gaussian noise of 10 to 25 levels, new in every frame."""
    made = torch.Generator().manual_seed(random.getrandbits(31))
    added = torch.randn(frames.shape, generator=made) * random.uniform(10, 25)
    return _levels(frames.float() + added)


def compressed(frames: Tensor, random: Random) -> Tensor:
    """H.264 at a rate factor of 38 to 46: blocks, smeared detail, wrong colours at edges."""
    return _through("libx264", {"crf": str(random.randint(38, 46)), "preset": "veryfast"}, frames)


def blocks(frames: Tensor, random: Random) -> Tensor:
    """MPEG-4 part 2 at the coarsest quantisers, 22 to 31: the 8 by 8 blocks of old files."""
    step = str(random.randint(22, 31))
    return _through("mpeg4", {"qmin": step, "qmax": step}, frames)


def frozen(frames: Tensor, random: Random) -> Tensor:
    """The picture stands still for three quarters of the clip or more, from a frame that is drawn."""
    count = len(frames)
    least = -(-3 * count // 4)
    stays = random.randint(least, max(least, count - 1))
    first = random.randint(0, count - stays)
    return frames[[first if first <= number < first + stays else number for number in range(count)]]


def dropped(frames: Tensor, random: Random) -> Tensor:
    """Of every four or five frames one is shown, in place of the others."""
    every = random.randint(4, 5)
    return frames[[number - number % every for number in range(len(frames))]]


def tinted(frames: Tensor, random: Random) -> Tensor:
    """One colour too strong by 25 to 50 levels, and the other two too weak by half of that."""
    strength = random.uniform(25, 50)
    shift = torch.full((3, 1, 1), -strength / 2)
    shift[random.randrange(3)] = strength
    return _levels(frames.float() + shift)


def coarse(frames: Tensor, random: Random) -> Tensor:
    """Shrunk to a third or a quarter and enlarged again."""
    from torchvision.transforms.v2.functional import resize

    size, times = list(frames.shape[-2:]), random.choice((3, 4))
    small = [max(1, round(side / times)) for side in size]
    return resize(resize(frames, small, antialias=True), size, antialias=True)


def faded(frames: Tensor, random: Random) -> Tensor:
    """Contrast reduced to between 25 and 50 %."""
    from torchvision.transforms.v2.functional import adjust_contrast

    return adjust_contrast(frames, random.uniform(0.25, 0.5))


DISTORTIONS: Final[Mapping[str, Distortion]] = MappingProxyType(
    {
        "blur": blur,
        "noise": noise,
        "compressed": compressed,
        "blocks": blocks,
        "frozen": frozen,
        "dropped": dropped,
        "tinted": tinted,
        "coarse": coarse,
        "faded": faded,
    }
)


def _levels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).byte()


def _through(codec: str, options: dict[str, str], frames: Tensor) -> Tensor:
    """Frames encoded with a codec and decoded again."""
    part = Part(modality="video", value=mp4(frames, _RATE, codec=codec, options=options))
    found = decode(part, VideoSettings(frames=len(frames))).tensor
    return found[:, :, : frames.shape[2], : frames.shape[3]]
