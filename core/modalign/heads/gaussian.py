"""A head that says how sure it is: a normal distribution over each reward.

d width, a responses, k dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from modalign.heads.reading import Read, ReadingHead, linear, project

VARIANCE: Final = "/log_variance"  #: what the name of a log-variance ends with
LEAST, MOST = -10.0, 10.0  #: what a log-variance lies between


@final
class GaussianHead(ReadingHead):
    """A mean and a log-variance per dimension: first all means, then all log-variances.

    Log-variances are drawn softly into -10 to 10, as App. A.1 of Chua et al., https://arxiv.org/abs/1805.12114, does
    it: unlike behind a hard clamp no gradient vanishes. They start near 0, a variance of 1.

    width: of the states (d).
    dimensions: what is judged.
    bias: whether to add one to means and log-variances; without it only the state's direction says how sure it is.
    read: which state; see `ReadingHead`.

    >>> GaussianHead(8, dimensions=("helpfulness",)).dimensions
    ('helpfulness', 'helpfulness/log_variance')
    """

    def __init__(
        self, width: int, dimensions: Sequence[str] = ("reward",), bias: bool = True, read: Read = "last"
    ) -> None:
        super().__init__(width, dimensions, read, bias=bias)
        self.dimensions = (*self.judged, *(name + VARIANCE for name in self.judged))
        self.score = linear(width, len(self.dimensions), bias=bias)

    def numbers(self, state: Tensor) -> Tensor:
        means, logs = project(self.score, state).chunk(2, dim=-1)
        logs = MOST - softplus(MOST - logs)
        logs = LEAST + softplus(logs - LEAST)
        return torch.cat([means, logs], dim=-1)

    def answers(self, numbers: Tensor) -> dict[str, Tensor]:
        means, logs = numbers.chunk(2, dim=-1)
        found = dict(zip(self.judged, means.unbind(-1), strict=True))
        return found | {f"{name}/variance": one for name, one in zip(self.judged, logs.exp().unbind(-1), strict=True)}
