"""Direct preference optimisation.

b pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.objectives.base import (
    Loss,
    Mean,
    Needs,
    Objective,
    displacement,
    inert,
    pair_logps,
    pair_metrics,
    weighted,
)
from modalign.scores import Scores


@final
class DPO(Objective):
    """``-log sigmoid(beta * (chosen log-ratio - rejected log-ratio))`` per pair.

    Eq. 7 of Rafailov et al., https://arxiv.org/abs/2305.18290; label smoothing is Eq. 3 of the note on conservative
    DPO by Mitchell, https://ericmitchell.ai/cdpo.pdf. Equal log-ratios give log 2.

    >>> DPO(beta=0.2).beta
    0.2
    """

    needs: ClassVar[Needs] = Needs(roles=("policy", "reference"), pairing="pair")

    beta: PositiveFloat = 0.1
    """How far the policy may move from the reference: larger stays closer. In the sum form, for every modality."""

    sft_weight: NonNegativeFloat = 0.0
    """Weight of imitating the chosen response beside that: its mean negative log-probability per token (Pang et al.,
    https://arxiv.org/abs/2404.19733), or its mean squared error per dimension where it is drawn (TangoFlux, Hung et
    al., https://arxiv.org/abs/2412.21037, with weight 1)."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """The probability that a label is wrong."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        chosen, rejected = pair_logps(scores["policy"], targets)  # b, b
        reference_chosen, reference_rejected = pair_logps(scores["reference"], targets)  # b, b
        chosen_rewards = self.beta * (chosen - reference_chosen)
        rejected_rewards = self.beta * (rejected - reference_rejected)
        logits = chosen_rewards - rejected_rewards
        losses = -(1 - self.label_smoothing) * logsigmoid(logits) - self.label_smoothing * logsigmoid(-logits)
        weights = targets.weights.double()
        if self.sft_weight:
            losses = losses + self.sft_weight * inert(scores["policy"].per_unit[targets.pairs[:, 0]], weights)
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=pair_metrics(chosen_rewards.detach(), rejected_rewards.detach(), weights)
            | {"logps/chosen": weighted(chosen, weights), "logps/rejected": weighted(rejected, weights)}
            | displacement(scores["policy"], scores["reference"], targets),
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()
