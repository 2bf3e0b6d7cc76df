"""Odds ratio preference optimisation: imitate the chosen response, and prefer it, without a reference.

b pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.objectives.base import Loss, Mean, Needs, Objective, pair_logps, pair_means, pair_metrics, weighted
from modalign.scores import NORMALISED, Scores

# A float32 model cannot say a probability closer to 1 than this; beyond it log odds would be made of rounding.
_CERTAIN = -torch.finfo(torch.float32).eps


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for negative x, to the last digit.

    Eq. 7 of Mächler, https://cran.r-project.org/package=Rmpfr/vignettes/log1mexp-note.pdf: each form where it is exact.
    """
    # each form is clamped a little beyond where it is taken, so that it has a finite gradient where it is not
    near = torch.log(-torch.expm1(x.clamp(min=-1.0)))
    far = torch.log1p(-torch.exp(x.clamp(max=-0.5)))
    return torch.where(x > -math.log(2), near, far)


def log_odds(logps: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of log-probabilities, finite up to certainty."""
    logps = logps.clamp(max=_CERTAIN)
    return logps - log1mexp(logps)


@final
class ORPO(Objective):
    """``-chosen mean logp - beta * log sigmoid(log odds of chosen - log odds of rejected)`` per pair.

    Eq. 6 and 7 of Hong et al., https://arxiv.org/abs/2403.07691, where beta is called lambda; odds are those of the
    mean log-probability per token (Eq. 4). Equal means give the first term and ``beta * log 2``. TRL's first term
    also takes the prompt's tokens and averages over the batch's tokens; the paper's, and ours, is the response's.

    >>> ORPO().needs.roles
    ('policy',)
    """

    needs: ClassVar[Needs] = Needs(pairing="pair", kinds=NORMALISED)

    beta: NonNegativeFloat = 0.1
    """Weight of the preference beside the imitation of the chosen response."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        chosen, rejected = pair_means(scores["policy"], targets)  # b, b
        log_odds_ratio = log_odds(chosen) - log_odds(rejected)
        losses = -chosen - self.beta * logsigmoid(log_odds_ratio)
        weights = targets.weights.double()
        chosen_logps, rejected_logps = pair_logps(scores["policy"].detach(), targets)
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=pair_metrics(self.beta * chosen.detach(), self.beta * rejected.detach(), weights)
            | {
                "logps/chosen": weighted(chosen_logps, weights),
                "logps/rejected": weighted(rejected_logps, weights),
                "nll_loss": weighted(-chosen, weights),
                "log_odds_chosen": weighted(log_odds_ratio, weights),
                "log_odds_ratio": weighted(logsigmoid(log_odds_ratio), weights),
            },
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()
