"""Identity preference optimisation.

b pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from pydantic import PositiveFloat
from torch import Tensor

from modalign.batch import Targets
from modalign.errors import ModelError
from modalign.objectives.base import (
    Loss,
    Mean,
    Needs,
    Objective,
    displacement,
    pair_logps,
    pair_means,
    pair_metrics,
    weighted,
)
from modalign.scores import NORMALISED, Scores, UnitKind


@final
class IPO(Objective):
    """``(chosen log-ratio - rejected log-ratio - 1 / (2 * beta))^2`` per pair.

    Eq. 17 of Azar et al., https://arxiv.org/abs/2310.12036, where beta is called tau. Equal log-ratios give
    ``1 / (4 * beta^2)``; the loss is 0 where the log-ratios differ by ``1 / (2 * beta)``, so a policy cannot run away.

    >>> IPO(beta=0.5).beta
    0.5
    """

    needs: ClassVar[Needs] = Needs(roles=("policy", "reference"), pairing="pair")

    beta: PositiveFloat = 0.1
    """How far the policy may move from the reference: the margin it is drawn to is 1 / (2 beta)."""

    length_normalized: bool = False
    """Divide each log-ratio by its response's tokens, as TRL does; the paper's equation sums. Tokens only."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        logps = pair_means if self.length_normalized else pair_logps
        chosen, rejected = logps(scores["policy"], targets)  # b, b
        reference_chosen, reference_rejected = logps(scores["reference"], targets)  # b, b
        margins = (chosen - reference_chosen) - (rejected - reference_rejected)
        losses = (margins - 1 / (2 * self.beta)).square()
        weights = targets.weights.double()
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=self._metrics(scores, targets),
        )

    def _metrics(self, scores: Mapping[str, Scores], targets: Targets) -> dict[str, Mean]:
        """Rewards are sums, normalised or not, so that runs compare."""
        chosen, rejected = pair_logps(scores["policy"].detach(), targets)
        reference_chosen, reference_rejected = pair_logps(scores["reference"].detach(), targets)
        return pair_metrics(
            self.beta * (chosen - reference_chosen), self.beta * (rejected - reference_rejected), targets.weights
        ) | {
            "logps/chosen": weighted(chosen, targets.weights),
            "logps/rejected": weighted(rejected, targets.weights),
            **displacement(scores["policy"], scores["reference"], targets),
        }

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()

    def refuse(self, kinds: frozenset[UnitKind]) -> None:
        super().refuse(kinds)
        if self.length_normalized and (wrong := sorted(kinds - NORMALISED)):
            raise ModelError(
                "IPO with length_normalized divides by a number of tokens",
                got=f"units of kind {', '.join(wrong)}, which have none",
                fix="set length_normalized: false",
            )
