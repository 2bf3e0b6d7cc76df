"""What reward objectives over pairs share: the two sides of each judgement, and the metrics of TRL's reward trainer.

b pairs, k dimensions, m numbers of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.objectives.base import WHOLE, Judgements, Loss, Mean, Pairing, Predictions, inert, weighted
from modalign.objectives.judging import RewardObjective, by_dimension, judged, preferences_of, sides
from modalign.scores import Scores


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """Pairs as a head and people judge them, dimension by dimension.

    first, second: ``b m`` numbers of the two; 0 where nobody judged.
    preferred: ``b k`` the probability that the first is better, as people said.
    margins: ``b k`` how much better it should be, in reward.
    weights: ``b k`` 0 where nobody judged.
    """

    first: Tensor
    second: Tensor
    preferred: Tensor
    margins: Tensor
    weights: Tensor

    @property
    def differences(self) -> Tensor:
        """Reward of the first less that of the second, ``b k``: the leading numbers are the rewards."""
        k = self.preferred.shape[-1]
        return self.first[:, :k] - self.second[:, :k]


class PairObjective(RewardObjective, ABC):
    """A reward objective that compares the two responses of a pair.

    What people said of a dimension is the probability that the first response is better: 1, 0, 0.5 for a tie, or in
    between. Of the dimension `reward` a pair's order says 1, where the data says nothing else, and the data's margin
    is about it alone.
    """

    pairing: ClassVar[Pairing] = "pair"

    @abstractmethod
    def losses(self, pairs: Judged) -> Tensor:
        """The loss of each judgement, ``b k``."""

    @abstractmethod
    def probability(self, pairs: Judged) -> Tensor:
        """The probability that the first is better, a tie being half of it, ``b k``: margins are no part of it."""

    @property
    def judgements(self) -> Judgements:
        return Judgements(preferences=self.dimensions)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many numbers the head may give."""
        return (len(self.dimensions),)

    def known(self, targets: Targets) -> Tensor:
        return preferences_of(targets, self.dimensions)[1]

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        pairs = self.judge(scores["policy"], targets)
        return Loss(
            sum=(self.losses(pairs) * pairs.weights).sum(),
            count=pairs.weights.sum(),
            metrics=pair_reward_metrics(pairs, self.dimensions),
        )

    def predictions(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Predictions]:
        pairs = self.judge(scores["policy"], targets)
        return judged("preference", self.dimensions, self.probability(pairs), pairs.preferred, pairs.weights)

    def judge(self, scores: Scores, targets: Targets) -> Judged:
        """The pairs of a batch."""
        preferred, weights = preferences_of(targets, self.dimensions)
        numbers = self.numbers(scores, *self.widths)
        first, second = sides(numbers, targets, weights.repeat(1, numbers.shape[1] // len(self.dimensions)))
        margins = torch.zeros_like(weights)
        if targets.margins is not None and WHOLE in self.dimensions:
            at = self.dimensions.index(WHOLE)
            margins[:, at] = inert(targets.margins.double(), weights[:, at])
        return Judged(first=first, second=second, preferred=preferred, margins=margins, weights=weights)


def pair_reward_metrics(pairs: Judged, dimensions: Sequence[str]) -> dict[str, Mean]:
    """TRL's metrics over all judgements, and accuracy and margin of each dimension where there is more than the whole.

    A margin is the reward of the preferred less that of the other; a tie has none, and no accuracy. A minimum cannot be
    added up: `min_reward` and `max_reward` are means over batches of theirs.
    """
    k = len(dimensions)
    first, second = pairs.first[:, :k].detach(), pairs.second[:, :k].detach()
    differences, weights = pairs.differences.detach(), pairs.weights
    both, twice = torch.stack([first, second]), torch.stack([weights, weights])  # 2 b k
    counts = twice != 0
    some = counts.any().double()
    least = both.masked_fill(~counts, torch.inf).amin() if both.numel() else some
    most = both.masked_fill(~counts, -torch.inf).amax() if both.numel() else some
    ordered = weights * (pairs.preferred != 0.5)
    margins = torch.where(pairs.preferred < 0.5, -differences, differences)
    right = (margins > 0).double()
    return {
        "accuracy": weighted(right, ordered),
        "margin": weighted(margins, ordered),
        "mean_reward": weighted(both, twice),
        "min_reward": weighted(least, some),
        "max_reward": weighted(most, some),
        **by_dimension("accuracy", dimensions, right, ordered),
        **by_dimension("margin", dimensions, margins, ordered),
    }
