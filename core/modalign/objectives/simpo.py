"""Simple preference optimisation: length-normalised likelihoods, and no reference.

b pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.objectives.base import Loss, Mean, Needs, Objective, pair_logps, pair_means, pair_metrics, weighted
from modalign.scores import NORMALISED, Scores


@final
class SimPO(Objective):
    """``-log sigmoid(beta * (chosen mean logp - rejected mean logp) - gamma)`` per pair; means are over tokens.

    Eq. 6 of Meng et al., https://arxiv.org/abs/2405.14734, whose settings for Llama-3-8B-Instruct are the defaults.
    Equal means give ``log(1 + exp(gamma))``.

    >>> SimPO(gamma=0.5).gamma
    0.5
    """

    needs: ClassVar[Needs] = Needs(pairing="pair", kinds=NORMALISED)

    beta: PositiveFloat = 2.5
    """Scale of the mean log-probability: the reward of a response."""

    gamma: NonNegativeFloat = 1.4
    """How much higher the reward of the chosen response should be."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        chosen, rejected = pair_means(scores["policy"], targets)  # b, b
        losses = -logsigmoid(self.beta * (chosen - rejected) - self.gamma)
        weights = targets.weights.double()
        chosen_logps, rejected_logps = pair_logps(scores["policy"].detach(), targets)
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=pair_metrics(self.beta * chosen.detach(), self.beta * rejected.detach(), weights)
            | {"logps/chosen": weighted(chosen_logps, weights), "logps/rejected": weighted(rejected_logps, weights)},
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()
