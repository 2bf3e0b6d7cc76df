"""Reward modelling: a head's number for the chosen response is higher than for the rejected one.

b pairs, k dimensions.
"""

from __future__ import annotations

from typing import final

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.objectives.pairwise import Judged, PairObjective


@final
class BradleyTerry(PairObjective):
    """``-log sigmoid(chosen reward - rejected reward - margin)`` per pair, of the head `reward`.

    Eq. 1 of Ouyang et al., https://arxiv.org/abs/2203.02155; the margin, where the data has one, is Eq. 2 of Touvron
    et al., https://arxiv.org/abs/2307.09288. Equal rewards without a margin give log 2. With several dimensions it is
    the sum over them, each counted where somebody said which response is better in it; a probability ``p`` that this
    is the first weighs the two orders, ``-p log sigmoid(x) - (1 - p) log sigmoid(-x)``, and a tie is ``p = 1/2``.

    >>> BradleyTerry().needs.heads
    ('reward',)
    >>> BradleyTerry(dimensions=("helpfulness", "harmlessness")).needs.spec("reward").dimensions
    ('helpfulness', 'harmlessness')
    """

    center_rewards_coefficient: NonNegativeFloat = 0.0
    """Weight of `(chosen + rejected)^2`, which draws rewards towards mean zero: Eq. 2 of
    https://arxiv.org/abs/2312.09244."""

    def losses(self, pairs: Judged) -> Tensor:
        return self._disagreement(pairs) + self.center_rewards_coefficient * (pairs.first + pairs.second).square()

    def probability(self, pairs: Judged) -> Tensor:
        return pairs.differences.sigmoid()

    def _disagreement(self, pairs: Judged) -> Tensor:
        logits = pairs.differences - pairs.margins
        return -pairs.preferred * logsigmoid(logits) - (1 - pairs.preferred) * logsigmoid(-logits)
