"""Confidence intervals of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054  #: of a 95 % interval


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``count`` independent trials: Wilson, JASA 22, 1927.

    >>> tuple(round(end, 3) for end in wilson(0.6, 300))
    (0.544, 0.654)
    """
    if count <= 0:
        return 0.0, 1.0
    spread = _Z * _Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float, float]:
    """How much more often ``after`` is right on the same trials, and the 95 % interval of that: Wald's for pairs.

    Agresti, "Categorical data analysis", 3rd edition, section 11.1.1.

    >>> difference, low, high = paired([True, False, False, False] * 50, [True, True, False, False] * 50)
    >>> round(difference, 2), round(low, 2), round(high, 2)
    (0.25, 0.19, 0.31)
    """
    count = len(before)
    if count == 0:
        return math.nan, -1.0, 1.0
    gained = sum(b > a for a, b in zip(before, after, strict=True)) / count
    lost = sum(a > b for a, b in zip(before, after, strict=True)) / count
    half = _Z * math.sqrt((gained + lost - (gained - lost) ** 2) / count)
    return gained - lost, gained - lost - half, gained - lost + half
