"""Confidence intervals of shares."""

from __future__ import annotations

import math

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
