"""What heads give and what people said, laid out for the laws of objectives: some things judged and others not.

a responses the loss is about, b comparisons, r responses of a batch, k dimensions, m numbers of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypedDict, cast

import torch
from torch import Tensor

from modalign.objectives.base import HeadSpec, Needs
from modalign.registry import registry

PREFERENCES: Final = (1.0, 0.0, 0.5, math.nan, 0.7)  #: first better, second better, a tie, nobody said, a probability
FLAGS: Final = (1.0, 0.0, math.nan)  #: within the range of every scale

_WIDTH: Final = 8  #: of the states of a head that is made only to count its numbers


def numbers(spec: HeadSpec, rewards: Tensor) -> Tensor:
    """What a head of this spec would give where one of one dimension gives ``r 1``: ``r m``."""
    each = rewards * torch.linspace(1.0, 0.4, len(spec.dimensions), dtype=rewards.dtype)  # r k
    match spec.type:
        case "gaussian":
            return torch.cat([each, each.clamp(-10, 10)], dim=-1)
        case "ordinal":
            cuts = torch.tensor(cast("list[float]", spec.options["cuts"]), dtype=rewards.dtype)
            return (each[..., None] - cuts).flatten(1)
        case "linear" | "cosine" | "labels":
            return each
        case _:
            head = registry.head(spec.type)(_WIDTH, dimensions=spec.dimensions, **spec.options)
            return rewards * torch.linspace(1.0, 0.4, len(head.dimensions), dtype=rewards.dtype)


class Said(TypedDict):
    """What people said, by dimension, as in `Targets`: NaN where nobody did."""

    preferences: dict[str, Tensor]
    rewards: dict[str, Tensor]


def said(needs: Needs, tokens: Sequence[Sequence[int] | None]) -> Said:
    """What was said of each comparison that its objective asks for; of a pair the same however it is turned.

    tokens: ``b`` lengths of each comparison's own responses, which decide it; None where nobody said anything. Where
        that is so of all comparisons, nothing is laid out.
    """
    if tokens and all(one is None for one in tokens):
        return Said(preferences={}, rewards={})
    pairs = needs.pairing == "pair"
    unknown = (None, None) if pairs else (None,)
    ordered = {
        name: [math.nan if one is None else PREFERENCES[(sum(one) + 3 * at) % 5] for one in tokens]
        for at, name in enumerate(needs.judgements.preferences if pairs else ())
    }
    flags = {
        name: [math.nan if n is None else FLAGS[(n + at) % 3] for one in tokens for n in (one or unknown)]
        for at, name in enumerate(needs.judgements.scores)
    }
    return Said(preferences=_columns(ordered), rewards=_columns(flags))


def _columns(values: dict[str, list[float]]) -> dict[str, Tensor]:
    return {name: torch.tensor(one, dtype=torch.float64) for name, one in values.items()}
