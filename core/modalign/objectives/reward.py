"""Reward modelling: a head's number for the chosen response is higher than for the rejected one.

b pairs, r responses of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.errors import ShapeError
from modalign.objectives.base import Loss, Mean, Needs, Objective, inert, weighted
from modalign.scores import Scores


@final
class BradleyTerry(Objective):
    """``-log sigmoid(chosen reward - rejected reward - margin)`` per pair, of the head `reward`.

    Eq. 1 of Ouyang et al., https://arxiv.org/abs/2203.02155; the margin, where the data has one, is Eq. 2 of Touvron
    et al., https://arxiv.org/abs/2307.09288. Equal rewards without a margin give log 2.

    >>> BradleyTerry().needs.heads
    ('reward',)
    """

    needs: ClassVar[Needs] = Needs(pairing="pair", units=False, heads=("reward",))

    center_rewards_coefficient: NonNegativeFloat = 0.0
    """Weight of `(chosen + rejected)^2`, which draws rewards towards mean zero: Eq. 2 of
    https://arxiv.org/abs/2312.09244."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        chosen, rejected = _pair_rewards(scores["policy"], targets)  # b, b
        weights = targets.weights.double()
        margins = 0.0 if targets.margins is None else inert(targets.margins.double(), weights)
        losses = -logsigmoid(chosen - rejected - margins)
        losses = losses + self.center_rewards_coefficient * (chosen + rejected).square()
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=_metrics(chosen.detach(), rejected.detach(), weights),
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()


def _pair_rewards(scores: Scores, targets: Targets) -> tuple[Tensor, Tensor]:
    """Rewards of chosen and rejected, ``b`` and ``b`` in float64; 0 where the pair has weight 0."""
    rewards = scores.rewards.get("reward")
    if rewards is None or rewards.shape != (scores.responses, 1):
        found = f"heads: {', '.join(scores.rewards) or 'none'}" if rewards is None else f"{tuple(rewards.shape)}"
        raise ShapeError(
            'BradleyTerry takes rewards of shape "r k" with k=1 from a head named `reward`',
            got=f"{found} with r={scores.responses}",
            fix="give the model a LinearHead of one dimension under that name",
        )
    chosen, rejected = rewards[:, 0].double()[targets.pairs].unbind(-1)
    return inert(chosen, targets.weights), inert(rejected, targets.weights)


def _metrics(chosen: Tensor, rejected: Tensor, weights: Tensor) -> dict[str, Mean]:
    """TRL's metrics. A minimum cannot be added up: `min_reward` and `max_reward` are means over batches of theirs."""
    both, twice = torch.stack([chosen, rejected]), torch.stack([weights, weights])  # 2 b
    counts = twice != 0
    some = counts.any().double()
    least = both.masked_fill(~counts, torch.inf).amin() if both.numel() else some
    most = both.masked_fill(~counts, -torch.inf).amax() if both.numel() else some
    return {
        "accuracy": weighted((chosen > rejected).double(), weights),
        "margin": weighted(chosen - rejected, weights),
        "mean_reward": weighted(both, twice),
        "min_reward": weighted(least, some),
        "max_reward": weighted(most, some),
    }
