"""A head of rates: a response's place on a scale, and the points that cut the scale into rates.

d width, a responses, k dimensions, c cut points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from modalign.errors import ConfigError
from modalign.heads.reading import Read, ReadingHead, linear, project


@final
class OrdinalHead(ReadingHead):
    """Logits of a rate above 0, above 1 and so on: ``latent - cut`` for each learned cut point, falling with them.

    The proportional odds model of McCullagh, "Regression models for ordinal data", JRSS B 42, 1980. Each dimension has
    its own cut points: the first, and the gaps between them, kept positive.

    width: of the states (d).
    dimensions: what is rated.
    cuts: where the cut points start, rising; a scale of rates 0 to 3 has three.
    read: which state; see `ReadingHead`.

    >>> OrdinalHead(8, dimensions=("clarity",), cuts=(-1.0, 1.0)).dimensions
    ('clarity>0', 'clarity>1')
    """

    def __init__(
        self,
        width: int,
        dimensions: Sequence[str] = ("reward",),
        cuts: Sequence[float] = (-2.0, 0.0, 2.0),
        read: Read = "last",
    ) -> None:
        places = [float(cut) for cut in cuts]
        gaps = [after - before for before, after in pairwise(places)]
        if not places or not all(gap > 0 for gap in gaps) or not all(map(math.isfinite, places)):
            raise ConfigError("cut points rise", where="cuts", got=places, fix="write them in order, each once")
        super().__init__(width, dimensions, read, cuts=places)
        self.dimensions = tuple(f"{name}>{rate}" for name in self.judged for rate in range(len(places)))
        self.score = linear(width, len(self.judged), bias=False)
        self.first = nn.Parameter(torch.full((len(self.judged), 1), places[0]))
        inverse = torch.tensor(gaps).expm1().log().expand(len(self.judged), -1)  # of softplus
        self.gaps = nn.Parameter(inverse.clone()) if gaps else None  # two rates have one cut point and no gap

    @property
    def cuts(self) -> Tensor:
        """The cut points, ``k c``."""
        if self.gaps is None:
            return self.first.float()
        rising = torch.cat([self.first.float(), softplus(self.gaps.float())], dim=-1)
        return rising.cumsum(-1)

    def numbers(self, state: Tensor) -> Tensor:
        latent = project(self.score, state)  # a k
        return (latent[..., None] - self.cuts).flatten(1)

    def answers(self, numbers: Tensor) -> dict[str, Tensor]:
        """The expected rate of each dimension: the sum of the probabilities of being above each rate."""
        above = numbers.sigmoid().unflatten(-1, (len(self.judged), -1)).sum(-1)  # a k
        return dict(zip(self.judged, above.unbind(-1), strict=True))
