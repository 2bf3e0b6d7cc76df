"""Reward-weighted regression: imitate every response, the better ones more.

a responses the loss is about, g comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from modalign.batch import Targets
from modalign.objectives.base import (
    WHOLE,
    Judgements,
    Loss,
    Mean,
    Needs,
    Objective,
    inert,
    needs_by,
    weighted,
)
from modalign.objectives.judging import rewards_of
from modalign.scores import Scores


def _asks(objective: RewardWeighted) -> Needs:
    least = 2 if objective.baseline is None else 1
    return Needs(pairing="each", judgements=Judgements(scores=(objective.dimension,), least=least))


@final
class RewardWeighted(Objective):
    """SFT's loss of each response times ``exp(reward / temperature)``, over the mean of that of its prompt's responses.

    Peters and Schaal, "Reinforcement learning by reward-weighted regression for operational space control", ICML 2007,
    whose transform of rewards is the exponential; of draws it is reward-weighted denoising: Lee et al.,
    https://arxiv.org/abs/2302.12192, with the exponential of Flow-RWR, Liu et al., https://arxiv.org/abs/2501.13918.
    Weights are normalised over the responses to a prompt, as in Abdolmaleki et al., https://arxiv.org/abs/1806.06920:
    what a prompt's rewards have in common drops out, and no weight depends on what else is in a batch.

    Equal rewards, and an infinite temperature, give SFT's loss. Rewards and temperature may be multiplied by one
    number, and to the rewards of a prompt one may be added.

    >>> RewardWeighted(temperature=0.5).needs.judgements.least
    2
    """

    needs: ClassVar[Needs] = needs_by(_asks)

    temperature: PositiveFloat = 1.0
    """Difference of rewards that makes a weight e times larger, in units of the reward: smaller imitates the best of
    a prompt's responses alone, `inf` all of them alike."""

    dimension: str = Field(default=WHOLE, min_length=1)
    """Which of the scores of a response is its reward; `reward` is the response as a whole."""

    baseline: float | None = Field(default=None, allow_inf_nan=False)
    """Reward that has the weight 1, where a response is to be compared with a number and not with the others to its
    prompt: for prompts with one response."""

    max_weight: float = Field(default=20.0, ge=1.0, allow_inf_nan=False)
    """Most weight of a response, as in Peng et al., https://arxiv.org/abs/1910.00177."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        rewards, weights = self._rewards(targets)  # a, a
        logps = inert(scores["policy"].logps[targets.own], weights)  # a
        shares = self.shares(rewards, weights, targets.group)
        return Loss(
            sum=-(logps * shares * weights).sum(),
            count=self.count(targets, scores["policy"].counts),
            metrics={
                "logps": weighted(logps, weights),
                "mean_reward": weighted(rewards, weights),
                "weighted_reward": weighted(rewards, weights * shares),
            },
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        # SFT's: weights of rewards are 1 in the mean, and those of clipped or of single ones are not to be divided away
        _, weights = self._rewards(targets)
        return (tokens[targets.own].double().clamp(min=1) * weights).sum()

    def shares(self, rewards: Tensor, weights: Tensor, group: Tensor) -> Tensor:
        """What each response's loss is multiplied by, ``a`` in float64.

        weights: ``a``; 0 where nobody gave a reward.
        group: ``a`` the comparison of each.
        """
        there = weights != 0
        if self.baseline is not None:
            return ((rewards - self.baseline) / self.temperature).clamp(max=math.log(self.max_weight)).exp()
        # there are no more comparisons than responses
        lowest = torch.full((len(group),), -torch.inf, dtype=torch.float64, device=rewards.device)
        best = lowest.scatter_reduce(0, group, rewards.masked_fill(~there, -torch.inf), "amax")  # g
        powers = inert(((rewards - best[group]) / self.temperature).exp(), weights)  # a, the best of a prompt has 1
        zeros = torch.zeros_like(best)
        means = zeros.index_add(0, group, powers) / zeros.index_add(0, group, there.double()).clamp(min=1)  # g
        return (powers / means.clamp(min=torch.finfo(torch.float64).tiny)[group]).clamp(max=self.max_weight)

    def _rewards(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """The reward of each response, and its weight in the loss before that: 0 where nobody gave one."""
        said, weights = rewards_of(targets, (self.dimension,))
        return said[:, 0], weights[:, 0]
