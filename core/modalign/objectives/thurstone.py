"""Reward modelling with a head that says how sure it is of each reward.

b pairs, k dimensions.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor

from modalign.objectives.pairwise import Judged, PairObjective

_LEAST: Final = -20.0  #: of the logarithm of a difference's standard deviation, far below what a `GaussianHead` gives


@final
class Thurstone(PairObjective):
    """``-log P``, ``P(first better) = Phi((mean - mean') / sqrt(variance + variance'))`` of two normal rewards.

    The law of comparative judgment of Thurstone, Psychological Review 34, 1927, for independent rewards; as a loss for
    reward models with a learned variance, Lou et al., https://arxiv.org/abs/2410.00847. Equal means give log 2 whatever
    the variances; as these vanish, the loss of a right order goes to 0 and of a wrong one without bound. Its head is
    `gaussian`.

    >>> Thurstone().needs.spec("reward").type
    'gaussian'
    """

    @property
    def head_type(self) -> str:
        return "gaussian"

    @property
    def widths(self) -> tuple[int, ...]:
        return (2 * len(self.dimensions),)

    def losses(self, pairs: Judged) -> Tensor:
        standard = _standardised(pairs, pairs.differences - pairs.margins)
        first, second = torch.special.log_ndtr(standard), torch.special.log_ndtr(-standard)
        return -pairs.preferred * first - (1 - pairs.preferred) * second

    def probability(self, pairs: Judged) -> Tensor:
        return torch.special.ndtr(_standardised(pairs, pairs.differences))


def _standardised(pairs: Judged, differences: Tensor) -> Tensor:
    """Differences in standard deviations of the difference, ``b k``."""
    k = differences.shape[-1]
    log_deviation = torch.logaddexp(pairs.first[:, k:], pairs.second[:, k:]) / 2
    return differences * torch.exp(-log_deviation.clamp(min=_LEAST))
