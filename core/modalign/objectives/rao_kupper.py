"""Reward modelling where people may say that two responses are equally good.

b pairs, k dimensions.
"""

from __future__ import annotations

import math
from typing import final

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.objectives.pairwise import Judged, PairObjective


@final
class RaoKupper(PairObjective):
    """``-log P`` of what people said: first better, second better, or a tie, ``P(first) = sigmoid(difference - tie)``.

    Rao and Kupper, JASA 62, 1967, whose theta is ``exp(tie)``; for reward models Liu et al.,
    https://arxiv.org/abs/2410.05328. ``P(tie) = (theta^2 - 1) P(first) P(second)`` is the rest, largest where rewards
    are equal: there a tie costs ``2 log(1 + theta) - log(theta^2 - 1)`` and an order ``log(1 + theta)``. As the
    threshold goes to 0, so does the probability of a tie, and orders cost what they do in Bradley-Terry. A probability
    between an order and a tie is a mixture of the two: 0.75 is half of each.

    >>> RaoKupper(tie=0.5).tie
    0.5
    """

    tie: PositiveFloat = 0.5
    """Difference of rewards below which a tie is likely: half the width of indifference, in reward."""

    def losses(self, pairs: Judged) -> Tensor:
        logits = pairs.differences - pairs.margins
        first, second = logsigmoid(logits - self.tie), logsigmoid(-logits - self.tie)
        tied = first + second + _log_expm1(2 * self.tie)
        lean = 2 * pairs.preferred - 1  # 1 first, -1 second, 0 tied
        return -lean.clamp(min=0) * first - (-lean).clamp(min=0) * second - (1 - lean.abs()) * tied

    def probability(self, pairs: Judged) -> Tensor:
        first, second = (pairs.differences - self.tie).sigmoid(), (-pairs.differences - self.tie).sigmoid()
        return (1 + first - second) / 2  # P(first) + P(tie) / 2

    def tied(self, pairs: Judged) -> Tensor:
        """The probability of a tie, ``b k``."""
        first, second = (pairs.differences - self.tie).sigmoid(), (-pairs.differences - self.tie).sigmoid()
        return torch.expm1(torch.tensor(2 * self.tie, dtype=torch.float64)) * first * second


def _log_expm1(x: float) -> float:
    """``log(exp(x) - 1)`` of positive x, without overflow."""
    return x + math.log(-math.expm1(-x))
