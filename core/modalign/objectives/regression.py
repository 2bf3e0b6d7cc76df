"""Reward modelling by regression: a head's number is the score people gave.

a responses, k dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from pydantic import PositiveFloat
from torch import Tensor

from modalign.objectives.base import Mean, weighted
from modalign.objectives.judging import EachObjective, by_dimension


@final
class Regression(EachObjective):
    """``(number - score)^2`` per score that people gave, of each response alone.

    Least squares on ratings, as in the first stage of Wang et al., https://arxiv.org/abs/2406.12845. With
    `huber_delta` it is Huber's loss, Ann. Math. Stat. 35, 1964: ``1/2 error^2`` up to delta and
    ``delta (|error| - delta / 2)`` beyond, so that a wild rating pulls no harder than one that is off by delta.

    >>> Regression(dimensions=("helpfulness", "verbosity")).needs.pairing
    'each'
    """

    huber_delta: PositiveFloat | None = None
    """Error beyond which the loss is linear, in units of the score; None is the square everywhere."""

    @property
    def head_settings(self) -> Mapping[str, object]:
        return {"bias": True, **self.head_options}  # scores have a mean of their own

    def losses(self, numbers: Tensor, said: Tensor) -> Tensor:
        errors = numbers - said
        if self.huber_delta is None:
            return errors.square()
        near = errors.abs().clamp(max=self.huber_delta)
        return near * (errors.abs() - near / 2)

    def told(self, numbers: Tensor) -> Tensor:
        return numbers

    def metrics(self, told: Tensor, said: Tensor, weights: Tensor) -> dict[str, Mean]:
        errors = (told - said).abs()
        return {
            "mae": weighted(errors, weights),
            "mse": weighted(errors.square(), weights),
            "mean_reward": weighted(told, weights),
            **by_dimension("mae", self.dimensions, errors, weights),
        }
