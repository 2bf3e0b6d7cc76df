"""Moderation: which labels a response carries, several at once.

a responses, k labels.
"""

from __future__ import annotations

from typing import ClassVar, Self, final

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.objectives.base import Mean, weighted
from modalign.objectives.judging import EachObjective, by_dimension


@final
class Moderation(EachObjective):
    """``-w y log sigmoid(logit) - (1 - y) log sigmoid(-logit)`` per label that people gave or denied a response.

    Binary cross-entropy, label by label, as in Eq. 4.107 of Bishop, "Pattern recognition and machine learning", 2006,
    with a weight ``w`` of its positives, as `pos_weight` of torch's `BCEWithLogitsLoss`. A logit of 0 gives log 2.

    >>> Moderation(dimensions=("violence", "hate"), pos_weights={"hate": 20.0}).head
    'labels'
    """

    most: ClassVar[float | None] = 1.0

    head: str = Field(default="labels", min_length=1, pattern=r"^[^.]+$")
    """Name of the head in the model."""

    dimensions: tuple[str, ...] = ("harmful",)
    """The labels, as the data's scores name them: 1 where a response carries it, 0 where not; else it is left out."""

    pos_weights: dict[str, PositiveFloat] = Field(default={})
    """Weight of a label's positives, 1 where nothing is said: about negatives over positives where it is rare."""

    @model_validator(mode="after")
    def _known_labels(self) -> Self:
        if unknown := sorted(self.pos_weights.keys() - set(self.dimensions)):
            msg = f"a weight for {unknown[0]!r}, which is none of the labels {', '.join(self.dimensions)}"
            raise ValueError(msg)
        return self

    @property
    def head_type(self) -> str:
        return "labels"

    def losses(self, numbers: Tensor, said: Tensor) -> Tensor:
        positive = numbers.new_tensor([self.pos_weights.get(name, 1.0) for name in self.dimensions])
        return -positive * said * logsigmoid(numbers) - (1 - said) * logsigmoid(-numbers)

    def told(self, numbers: Tensor) -> Tensor:
        """The probability of each label."""
        return numbers.sigmoid()

    def metrics(self, told: Tensor, said: Tensor, weights: Tensor) -> dict[str, Mean]:
        right = ((told > 0.5) == (said > 0.5)).double()
        return {
            "accuracy": weighted(right, weights),
            **by_dimension("accuracy", self.dimensions, right, weights),
            **by_dimension("positives", self.dimensions, told, weights),
        }
