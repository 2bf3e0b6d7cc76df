"""Reward modelling on rates: numbers 0, 1, 2 ... that have an order and no distances.

a responses, k dimensions, c cut points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final, final

import torch
from pydantic import field_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.errors import DataError
from modalign.objectives.base import Judgements, Mean, weighted
from modalign.objectives.judging import EachObjective, by_dimension, rewards_of
from modalign.objectives.orpo import log1mexp

_GAP: Final = 1e-6  #: cut points closer than this count as that far apart: float32 numbers may have lost their distance


@final
class Ordinal(EachObjective):
    """``-log P(rate)`` per rate that people gave, ``P(above j) = sigmoid(latent - cut j)``: a cumulative link.

    The proportional odds model of McCullagh, "Regression models for ordinal data", JRSS B 42, 1980. A rate's
    probability is the difference of two neighbours, and they sum to 1. With two rates it is logistic regression.

    >>> Ordinal(cuts=(-1.0, 1.0)).rates
    3
    """

    cuts: tuple[float, ...] = (-2.0, 0.0, 2.0)
    """Where the latent number passes from one rate to the next, rising; three for rates 0 to 3."""

    learned: bool = True
    """Learn the cut points, each dimension its own, from these on, by the head `ordinal`; else they stay, and a head
    `linear` learns only the scale and the place of the latent number."""

    @field_validator("cuts")
    @classmethod
    def _rising(cls, cuts: tuple[float, ...]) -> tuple[float, ...]:
        finite = all(map(math.isfinite, cuts))
        if not cuts or not finite or any(after <= before for before, after in pairwise(cuts)):
            msg = "one or more numbers, rising"
            raise ValueError(msg)
        return cuts

    @property
    def rates(self) -> int:
        """How many rates there are."""
        return len(self.cuts) + 1

    @property
    def head_type(self) -> str:
        return "ordinal" if self.learned else "linear"

    @property
    def head_settings(self) -> Mapping[str, object]:
        own: dict[str, object] = {"cuts": list(self.cuts)} if self.learned else {"bias": True}
        return {**own, **self.head_options}

    @property
    def judgements(self) -> Judgements:
        return Judgements(scores=self.dimensions, most=self.rates - 1, whole=True)

    @property
    def per_dimension(self) -> int:
        return len(self.cuts) if self.learned else 1

    def said(self, targets: Targets) -> tuple[Tensor, Tensor]:
        said, weights = rewards_of(targets, self.dimensions, most=self.rates - 1)
        broken = (said != said.round()).nonzero()
        if len(broken):
            row, at = broken[0].tolist()
            raise DataError(
                f"expected a rate: a whole number from 0 to {self.rates - 1}",
                field=f"scores.{self.dimensions[at]}",
                got=f"{said[row, at].item():g}",
                fix="use the objective `regression` for scores between rates",
            )
        return said, weights

    def log_probabilities(self, numbers: Tensor) -> Tensor:
        """Of every rate, ``a k c+1``."""
        above = self._above(numbers)
        # P(j) = s(x) - s(y) = s(x) s(-y) (1 - exp(y - x)), x and y the logits of being above j - 1 and above j
        gaps = (above[..., :-1] - above[..., 1:]).clamp(min=_GAP)
        lowest, highest = logsigmoid(-above[..., :1]), logsigmoid(above[..., -1:])
        between = logsigmoid(above[..., :-1]) + logsigmoid(-above[..., 1:]) + log1mexp(-gaps)
        return torch.cat([lowest, between, highest], dim=-1)

    def losses(self, numbers: Tensor, said: Tensor) -> Tensor:
        return -self.log_probabilities(numbers).gather(-1, said.long()[..., None])[..., 0]

    def told(self, numbers: Tensor) -> Tensor:
        """The expected rate: the sum of the probabilities of being above each."""
        return self._above(numbers).sigmoid().sum(-1)

    def metrics(self, told: Tensor, said: Tensor, weights: Tensor) -> dict[str, Mean]:
        errors = (told - said).abs()
        return {
            "mae": weighted(errors, weights),
            "mean_reward": weighted(told, weights),
            **by_dimension("mae", self.dimensions, errors, weights),
        }

    def _above(self, numbers: Tensor) -> Tensor:
        """Logits of a rate above 0, above 1 and so on, ``a k c``."""
        if self.learned:
            return numbers.unflatten(-1, (len(self.dimensions), len(self.cuts)))
        return numbers[..., None] - numbers.new_tensor(self.cuts)
