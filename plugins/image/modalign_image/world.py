"""The oracle world in pictures: one to three shapes of one colour on one side, 32 by 32 pixels.

Given the concept the layout is fixed; only jitter of less than a pixel is free.

b shapes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import ClassVar, cast, final

import torch
from einops import reduce
from torch import Tensor
from torch.nn.functional import pad

from modalign.content import Part
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept
from modalign.world.packed import unpack
from modalign.world.painter import LESSON
from modalign_image.colours import NAMES, paint, strengths

SIZE = 32
JITTER = 0.4  #: pixels, either way
MINIMUM = 8  #: pixels of a shape; what is smaller than SPECK is noise, what lies between is unreadable
SPECK = 3
AGREEMENT = 0.7  #: least overlap (soft intersection over union) of a thing with the shape it is read as

_SHAPES = cast("tuple[str, ...]", VALUES["shape"])
_ROWS = {1: (16.0,), 2: (10.0, 22.0), 3: (6.0, 16.0, 26.0)}
_COLUMNS = {"left": 8.0, "right": 24.0}
_FINE = 4  #: samples per pixel and axis in a shape's edge
_WINDOW = 12  #: pixels round a thing's centroid that are compared with a shape


@final
class ImageDepiction(Depiction):
    """Shapes on a dark ground, ``3 32 32`` of float32 from 0 to 1.

    What a concept leaves open is chosen by the seed. Reads exactly what it depicts, after 8-bit rounding, and with
    Gaussian noise of standard deviation 0.1 added; things that disagree, or that are no shape, are unreadable.

    >>> picture = ImageDepiction()
    >>> concept = Concept(count=3, shape="square", colour="blue", side="right")
    >>> picture.read(picture.depict(concept)) == concept
    True
    """

    modality: ClassVar[str] = "image"
    attributes: ClassVar[frozenset[str]] = frozenset({"count", "shape", "colour", "side"})
    lesson: ClassVar[Mapping[str, object]] = MappingProxyType(
        {**LESSON, "sft_steps": 1400, "dpo_steps": 160, "learning_rate": 2e-4}
    )

    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        random = Random(f"image/{seed}")
        free = {name: random.choice(VALUES[name]) for name in sorted(self.attributes)}
        whole = Concept.of({**free, **concept.only(self.attributes).said})
        coverage = torch.zeros(SIZE, SIZE)
        for row in _ROWS[cast(int, whole.count)]:
            down, right = (random.uniform(-JITTER, JITTER) for _ in range(2))
            at = torch.tensor([row + down]), torch.tensor([_COLUMNS[cast(str, whole.side)] + right])
            coverage = torch.maximum(coverage, cover(cast(str, whole.shape), *at)[0])
        return Part(modality=self.modality, value=paint(coverage, cast(str, whole.colour)))

    def student(self, folder: Path, *, seed: int = 0) -> Path:
        from modalign.integrations.painter import save_painter
        from modalign_image.painter import ImageCanvas

        return save_painter(folder, self, ImageCanvas(), seed=seed)

    def taught(self, folder: Path) -> Path:
        return unpack(Path(__file__).parent / "taught", folder)

    def read(self, part: Part) -> Concept | None:
        picture = part.value
        if not isinstance(picture, Tensor) or picture.shape != (3, SIZE, SIZE) or not picture.is_floating_point():
            return None
        if not picture.isfinite().all():
            return None
        strength = strengths(picture.detach().float().cpu())  # k h w
        found = components(strength.amax(0) > 0.5)
        things = [one for one in found if one.sum() >= MINIMUM]
        specks = sum(int(one.sum()) for one in found if one.sum() < SPECK)
        if not 1 <= len(things) <= 3 or len(things) < sum(one.sum() >= SPECK for one in found) or specks > MINIMUM:
            return None
        read = {_read_thing(strength, thing) for thing in things}
        only = read.pop()
        if read or only is None:
            return None  # the things disagree, or one is nothing we know
        colour, shape, side = only
        return Concept(count=len(things), colour=colour, shape=shape, side=side)


def cover(shape: str, down: Tensor, right: Tensor, *, size: int = SIZE) -> Tensor:
    """The share of each pixel that a shape covers, ``b h w``.

    down, right: ``b`` the shape's centre, in pixels from the top and from the left of a square of ``size`` pixels.
    """
    at = (torch.arange(size * _FINE) + 0.5) / _FINE
    y, x = at[:, None] - down[:, None, None], at[None, :] - right[:, None, None]
    match shape:
        case "circle":
            inside = y**2 + x**2 <= 3.2**2
        case "square":
            inside = (y.abs() <= 2.8) & (x.abs() <= 2.8)
        case _:  # a triangle that stands on its base, its centroid at the centre
            inside = (y <= 2.2) & (y >= -4.4) & (x.abs() <= (y + 4.4) * 0.58)
    return reduce(inside.float(), "b (h fine) (w too) -> b h w", "mean", fine=_FINE, too=_FINE)


def components(mask: Tensor) -> list[Tensor]:
    """The 4-connected parts of a mask ``h w``, each a mask, found from the top."""
    left = {(int(y), int(x)) for y, x in mask.nonzero()}
    found: list[Tensor] = []
    while left:
        reached = [min(left)]
        left.discard(reached[0])
        for y, x in reached:
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.discard(near)
                    reached.append(near)
        one = torch.zeros_like(mask)
        rows, columns = zip(*reached, strict=True)
        one[list(rows), list(columns)] = True
        found.append(one)
    return found


def _read_thing(strength: Tensor, thing: Tensor) -> tuple[str, str, str] | None:
    """Colour, shape and side of one component; None where it is no shape."""
    sums = (strength * thing).sum((-1, -2))  # k
    number = int(sums.argmax())
    if sums[number] < 0.8 * sums.sum():
        return None  # a patchwork of colours
    y, x = (axis.float().mean().item() + 0.5 for axis in thing.nonzero().unbind(-1))
    alpha = strength[number].clamp(0, 1)
    alpha = pad(torch.where(alpha > 0.3, alpha, 0.0), [_WINDOW] * 4)  # faint pixels are noise or the thing's very edge
    top, left = int(y) + _WINDOW // 2, int(x) + _WINDOW // 2  # of a window of the padded picture round the centroid
    window = alpha[top : top + _WINDOW, left : left + _WINDOW]
    scores = {shape: _overlap(window, shape, y + _WINDOW - top, x + _WINDOW - left) for shape in _SHAPES}
    shape = max(scores, key=scores.__getitem__)
    if scores[shape] < AGREEMENT:
        return None
    return NAMES[number], shape, "left" if x < SIZE / 2 else "right"


def _overlap(window: Tensor, shape: str, down: float, right: float) -> float:
    """Best soft intersection over union with a shape whose centre is at most half a pixel from there."""
    shifts = torch.linspace(-0.5, 0.5, 5)
    template = cover(
        shape, down + shifts.repeat_interleave(5), right + shifts.repeat(5), size=_WINDOW
    )  # 25 centres, h w
    both, either = torch.minimum(window, template).sum((-1, -2)), torch.maximum(window, template).sum((-1, -2))
    return (both / either).max().item()
