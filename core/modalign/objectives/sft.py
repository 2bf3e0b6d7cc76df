"""Supervised fine-tuning: imitate the response.

a responses, r responses of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from modalign.batch import Targets
from modalign.objectives.base import Loss, Mean, Needs, Objective, own_logps, weighted
from modalign.scores import Scores


@final
class SFT(Objective):
    """Negative log-likelihood: the mean over all tokens of the step, or over responses that have no tokens.

    Maximum likelihood; Eq. 1 of Radford et al., "Improving language understanding by generative pre-training". A
    response of draws counts once, so its loss is its bound on the negative log-likelihood (for one draw
    ``1/2 * sum((prediction - target)^2)``: the usual diffusion loss, times half its dimensions).

    >>> SFT().needs.pairing
    'response'
    """

    needs: ClassVar[Needs] = Needs(pairing="response")

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        logps = own_logps(scores["policy"], targets)  # a
        return Loss(
            sum=-(logps * targets.weights.double()).sum(),
            count=self.count(targets, scores["policy"].counts),
            metrics={"logps/chosen": weighted(logps, targets.weights)},
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        # one of tokens and draws counts its tokens: how much the draws matter beside them is for the weights of its
        # segments to say
        return (tokens[targets.own].double().clamp(min=1) * targets.weights.double()).sum()
