"""Which response of a pair is the better one where people judged several dimensions: a weighted sum of preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from modalign.comparison import Comparison
from modalign.errors import DataError, Skipped

TIED: Final = "a tie in every dimension that counts"
EVEN: Final = "the dimensions that count disagree, and weigh the same"

_EVEN: Final = 1e-9  #: share of the weights below which a sum is rounding


def ordered(comparison: Comparison, weights: Mapping[str, float]) -> Comparison:
    """The pair with the better response first: by ``sum(weight * (2 p - 1)) / sum(|weight|)``, its new margin.

    p is the probability that the first is better in a dimension: 1, 0, or 1/2 for a tie. A pair of which a dimension
    that counts is not judged, or whose sum is 0, is `Skipped`.

    weights: by dimension, none of them 0; a negative one prefers what is worse.

    >>> from modalign.testing import ask, say
    >>> pair = replace(Comparison.pair(ask("a"), say("b"), say("c")), preferences={"kind": 0.0, "short": 1.0})
    >>> found = ordered(pair, {"kind": 3.0, "short": 1.0})
    >>> found.chosen == pair.rejected, found.margin
    (True, 0.5)
    """
    if comparison.kind != "pair":
        raise DataError(
            "weights of preferences order the two responses of a pair",
            got=f"{comparison.kind} with {len(comparison.responses)} response(s)",
            fix="leave preference_weights out, or use pairs",
        )
    for name in weights:
        if math.isnan(comparison.preferences.get(name, math.nan)):
            raise Skipped(
                f"no preference for {name}",
                field=name,
                got=f"preferences: {', '.join(comparison.preferences) or 'none'}",
                fix="the row is left out",
            )
    said = {name: 2 * comparison.preferences[name] - 1 for name in weights}
    total = sum(weights[name] * one for name, one in said.items()) / sum(map(abs, weights.values()))
    if abs(total) <= _EVEN:
        raise Skipped(EVEN if any(said.values()) else TIED, fix="the row is left out")
    return replace(comparison if total > 0 else comparison.swap(), margin=abs(total))


def outvoted(comparison: Comparison, weights: Mapping[str, float]) -> tuple[str, ...]:
    """The dimensions that count and would have the other response of an ordered pair first."""
    return tuple(
        name for name, weight in weights.items() if weight * (2 * comparison.preferences.get(name, 0.5) - 1) < 0
    )
