"""Shapes of pictures and of clips: which may be compared, which of several is nearest, and which a model may make.

h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from modalign.errors import ConfigError, DataError
from modalign.roles import Content

_EQUAL: Final = 1.25  #: most that areas of buckets may differ by
_WIDEST: Final = 2.0  #: times as wide as high, or the other way round


def check_shapes(contents: Sequence[Content], tolerance: float, size: tuple[int, int], what: str) -> None:
    """Raise where media of one comparison differ in shape.

    tolerance: of aspect ratios, as a share.
    size: ``h w`` that all are cropped to.
    what: they are called.
    """
    ratios = [_ratio(one) for one in contents]
    if ratios and max(ratios) > min(ratios) * (1 + tolerance):
        raise DataError(
            f"the {what} of this comparison differ in shape",
            field="rejected",
            got=f"aspect ratios from {min(ratios):.2f} to {max(ratios):.2f}",
            fix="leave the row out (on_bad_row: skip), or raise model.options.aspect_tolerance: all are cropped to "
            f"{size[1]} by {size[0]}",
        )


def shape_gap(contents: Sequence[Content], size: tuple[int, int]) -> float:
    """How far the shape of the first, which is a pair's chosen, is from that of a size."""
    height, width = size
    return abs(math.log(_ratio(contents[0]) * height / width))


def check_buckets(sizes: Sequence[tuple[int, int]], multiple: int) -> None:
    """Raise where a model cannot make pictures of these sizes, or where they differ much in area.

    multiple: of which sides are whole numbers.
    """
    area = math.prod(sizes[0]) if sizes else 0
    for height, width in sizes:
        if height % multiple or width % multiple:
            raise ConfigError(
                "this model makes nothing of that size",
                where="model.options.aspect_buckets",
                got=f"{height} by {width} pixels",
                fix=f"multiples of {multiple}",
            )
        if not 1 / _EQUAL <= height * width / area <= _EQUAL:
            raise ConfigError(
                "buckets are of one area, so that each picture counts alike and needs the same memory",
                where="model.options.aspect_buckets",
                got=f"{height} by {width} pixels, and {' by '.join(map(str, sizes[0]))}",
                fix=f"areas that differ by {_EQUAL - 1:.0%} at most",
            )


def aspect_sizes(height: int, width: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """Sizes ``h w`` of about the area of one, which is among them, from half to twice as wide as high.

    A sixteenth of a side apart, as those that Stable Diffusion XL was trained on: appendix I of Podell et al.,
    https://arxiv.org/abs/2307.01952.

    multiple: of which sides are whole numbers.

    >>> aspect_sizes(16, 16, 4)
    ((20, 12), (16, 16), (12, 20))
    """
    side = math.sqrt(height * width)
    step = max(round(side / 16 / multiple), 1) * multiple
    found = {(height, width), (width, height)}
    for short in range(step, math.floor(side) + 1, step):
        long = round(side * side / short / step) * step
        if long / short <= _WIDEST and 1 / _EQUAL <= long * short / side**2 <= _EQUAL:
            found |= {(long, short), (short, long)}
    return tuple(sorted(found, key=lambda size: size[1] / size[0]))


def _ratio(content: Content) -> float:
    """How much wider than high."""
    return content.tensor.shape[-1] / content.tensor.shape[-2]
