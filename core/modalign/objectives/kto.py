"""Kahneman-Tversky optimisation: each response is judged alone, against what is usual.

a responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from modalign.batch import Targets
from modalign.errors import ShapeError
from modalign.objectives.base import Loss, Mean, Needs, Objective, own_logps, weighted
from modalign.scores import Scores


@final
class KTO(Objective):
    """``lambda * (1 - sigmoid(v))`` per response, ``v = beta * (log-ratio - z0)`` if desirable, its negative if not.

    Eq. 7 and 8 of Ethayarajh et al., https://arxiv.org/abs/2402.01306. z0 estimates the KL divergence of policy from
    reference: the mean log-ratio of responses under prompts they do not answer, over all ranks, at least 0, without
    gradient. Equal log-ratios give 1/2. Both terms rise towards lambda as a response goes the wrong way.

    >>> KTO().needs.mismatched
    True
    """

    needs: ClassVar[Needs] = Needs(roles=("policy", "reference"), pairing="label", mismatched=True)

    beta: PositiveFloat = 0.1
    """How fast the value of a response saturates as its log-ratio moves away from z0."""

    desirable_weight: NonNegativeFloat = 1.0
    """Weight of desirable responses: raise it where they are few."""

    undesirable_weight: NonNegativeFloat = 1.0
    """Weight of undesirable responses: raise it where they are few."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        labels = _labels(targets)
        logps = own_logps(scores["policy"], targets)  # a
        logratios = logps - own_logps(scores["reference"], targets)  # a
        kl = _z0((self.statistics(scores, targets) if statistics is None else statistics)["kl"])
        # 1 - sigmoid(x) is sigmoid(-x), which keeps its digits where x is large
        desirable = torch.sigmoid(self.beta * (kl - logratios))
        undesirable = torch.sigmoid(self.beta * (logratios - kl))
        losses = torch.where(labels, self.desirable_weight * desirable, self.undesirable_weight * undesirable)
        weights = targets.weights.double()
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=_metrics(self.beta * logratios.detach(), logps.detach(), labels, weights)
            | {"kl": Mean(sum=kl, count=torch.ones_like(kl))},
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()

    def statistics(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Mean]:
        """The mean log-ratio of mismatched responses, from which z0 is taken once it is added up over ranks."""
        if targets.mismatched is None or targets.mismatched.shape != targets.own.shape:
            found = "none" if targets.mismatched is None else f"{len(targets.mismatched)} for {len(targets.own)}"
            raise ShapeError(
                "KTO needs a mismatched response for each response",
                got=found,
                fix="assemble the batch with KTO.needs and a partner for each comparison",
            )
        policy = scores["policy"].logps.detach()[targets.mismatched]
        reference = scores["reference"].logps.detach()[targets.mismatched]
        return {"kl": weighted(policy - reference, targets.weights)}


def _labels(targets: Targets) -> Tensor:
    """Which responses are desirable, ``a`` of bool."""
    if targets.labels is None:
        raise ShapeError(
            "KTO needs a label for each response", got="none", fix="assemble the batch with KTO.needs (pairing: label)"
        )
    return targets.labels > 0.5


def _z0(kl: Mean) -> Tensor:
    """The KL estimate, 0-d: a mean that noise may take below 0, where a divergence cannot be."""
    return (kl.sum / kl.count.clamp(min=torch.finfo(torch.float64).tiny)).clamp(min=0)


def _metrics(rewards: Tensor, logps: Tensor, labels: Tensor, weights: Tensor) -> dict[str, Mean]:
    """TRL's metrics: means over desirable (`chosen`) and undesirable (`rejected`) responses.

    The margin, a difference of two means, is not among them: over responses that are no pairs it cannot be added up
    from batches.
    """
    chosen, rejected = weights * labels, weights * ~labels
    return {
        "rewards/chosen": weighted(rewards, chosen),
        "rewards/rejected": weighted(rewards, rejected),
        "logps/chosen": weighted(logps, chosen),
        "logps/rejected": weighted(logps, rejected),
    }
