"""A head that compares directions: the cosine between a response's state and what a dimension looks like.

d width, a responses, k dimensions, e width of the projection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.heads.reading import Read, ReadingHead, linear, project

MOST_SCALE: Final = 100.0  #: what cosines are multiplied by at most


@final
class CosineHead(ReadingHead):
    """``scale * cos(W state, direction)`` per dimension, with a learned scale (one over the temperature).

    The similarity of CLIP, Fig. 3 and section 2.5 of Radford et al., https://arxiv.org/abs/2103.00020: both sides
    normalised, the scale a learned exponential that starts at 1 / 0.07 and never exceeds 100. A state has seen prompt
    and response, so there is no second encoder to compare with: the other side is a learned direction per dimension, as
    in section 3 of Wang et al., https://arxiv.org/abs/1704.06369. Rewards are bounded: they cannot run away.

    width: of the states (d).
    dimensions: what is judged.
    projection: width of the space in which directions are compared (e).
    read: which state; see `ReadingHead`.

    >>> CosineHead(8, dimensions=("helpfulness",), projection=4).direction.shape
    torch.Size([1, 4])
    """

    def __init__(
        self, width: int, dimensions: Sequence[str] = ("reward",), projection: int = 64, read: Read = "last"
    ) -> None:
        super().__init__(width, dimensions, read, projection=projection)
        self.project = linear(width, projection, bias=False)
        self.direction = nn.Parameter(torch.empty(len(self.judged), projection))
        nn.init.normal_(self.direction, std=projection**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def numbers(self, state: Tensor) -> Tensor:
        sides = normalize(project(self.project, state), dim=-1), normalize(self.direction.float(), dim=-1)
        scale = self.log_scale.float().exp().clamp(max=MOST_SCALE)
        return scale * sides[0] @ sides[1].mT
