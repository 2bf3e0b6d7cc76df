"""How well predicted probabilities agree with what people said, as pure functions of two tensors.

m judgements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modalign.errors import ShapeError
from modalign.evaluation.intervals import wilson

_Z = 1.959963984540054  #: of a 95 % interval


@final
@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval.

    count: judgements it is made of.
    """

    value: float
    low: float
    high: float
    count: int


@final
@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One point of a reliability curve: the predictions that fall into one bin.

    low, high: ends of the bin.
    predicted: their mean; ``said`` the mean of what people said of the same ones.
    count: how many.
    """

    low: float
    high: float
    predicted: float
    said: float
    count: int


@final
@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of a label at a threshold."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def f1(self) -> float | None:
        """``2 TP / (2 TP + FP + FN)``: van Rijsbergen, "Information retrieval", 1979; None of nothing positive."""
        wrong = self.false_positive + self.false_negative
        whole = 2 * self.true_positive + wrong
        return 2 * self.true_positive / whole if whole else None


def agreement(predicted: Tensor, said: Tensor) -> Estimate | None:
    """How often the more probable of two was the one people preferred, with Wilson's interval; None without any.

    Ties of people are left out. A prediction of exactly one half agrees with nobody, as in TRL's accuracy.

    predicted, said: ``m`` probabilities that the first is better.

    >>> found = agreement(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([1.0, 0.0, 0.5]))
    >>> found.value, found.count
    (0.5, 2)
    """
    predicted, said = _doubles(predicted, said)
    ordered = said != 0.5
    right = torch.where(said > 0.5, predicted > 0.5, predicted < 0.5)[ordered]
    if not len(right):
        return None
    share = right.double().mean().item()
    low, high = wilson(share, len(right))
    return Estimate(value=share, low=low, high=high, count=len(right))


def reliability(predicted: Tensor, said: Tensor, *, bins: int = 10) -> tuple[Reliability, ...]:
    """The points of a reliability curve: bins of equal width over [0, 1], without the empty ones.

    A prediction on the edge of two bins is in the upper one, 1 in the last.
    """
    predicted, said = _doubles(predicted, said)
    bin_of = (predicted * bins).long().clamp(max=bins - 1)
    points: list[Reliability] = []
    for number in range(bins):
        inside = bin_of == number
        if inside.any():
            points.append(
                Reliability(
                    low=number / bins,
                    high=(number + 1) / bins,
                    predicted=predicted[inside].mean().item(),
                    said=said[inside].mean().item(),
                    count=int(inside.sum()),
                )
            )
    return tuple(points)


def calibration_error(predicted: Tensor, said: Tensor, *, bins: int = 10) -> float | None:
    """The expected calibration error: how far the points of `reliability` lie from the diagonal, weighted by count.

    Eq. 3 of Guo et al., https://arxiv.org/abs/1706.04599, of the probability itself rather than of the likelier class.

    >>> calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([1.0, 0.0]))
    0.25
    """
    points = reliability(predicted, said, bins=bins)
    total = sum(point.count for point in points)
    return sum(point.count * abs(point.predicted - point.said) for point in points) / total if total else None


def brier(predicted: Tensor, said: Tensor) -> float | None:
    """The mean squared error of probabilities: Brier, Monthly Weather Review 78, 1950."""
    predicted, said = _doubles(predicted, said)
    return (predicted - said).square().mean().item() if len(said) else None


def auroc(predicted: Tensor, said: Tensor) -> Estimate | None:
    """The probability that a positive is ranked above a negative, a tie being half; None where one of them is missing.

    The interval is Hanley and McNeil's, Radiology 143, 1982, cut to [0, 1]; of a perfect ranking it has no width.

    predicted: ``m`` of anything that orders.
    said: ``m`` of 1 and 0, cut at one half.

    >>> auroc(torch.tensor([0.9, 0.4, 0.6]), torch.tensor([1.0, 1.0, 0.0])).value
    0.5
    """
    predicted, said = _doubles(predicted, said)
    positive, negative = predicted[said > 0.5], predicted[said <= 0.5].sort().values
    p, n = len(positive), len(negative)
    if not p or not n:
        return None
    below, up_to = (torch.searchsorted(negative, positive, right=right).double() for right in (False, True))
    area = ((below + up_to) / 2 / n).mean().item()
    # Eq. 1 of the paper, with Q1 and Q2 of a negative exponential
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (p - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (p * n)
    half = _Z * math.sqrt(max(0.0, variance))
    return Estimate(value=area, low=max(0.0, area - half), high=min(1.0, area + half), count=p + n)


def confusion(predicted: Tensor, said: Tensor, *, threshold: float = 0.5) -> Confusion:
    """What comes of calling a label where it is predicted with more than ``threshold``."""
    predicted, said = _doubles(predicted, said)
    called, held = predicted > threshold, said > 0.5
    return Confusion(
        true_positive=int((called & held).sum()),
        false_positive=int((called & ~held).sum()),
        true_negative=int((~called & ~held).sum()),
        false_negative=int((~called & held).sum()),
    )


def best_threshold(predicted: Tensor, said: Tensor) -> tuple[float, float] | None:
    """The threshold of the largest F1, and that F1; None where nothing is positive.

    Thresholds lie midway between neighbours, and halfway from the lowest to 0; of equal F1 the highest is taken.
    Found on the data it is measured on, it flatters: carry it over to other data.
    """
    predicted, said = _doubles(predicted, said)
    held = said > 0.5
    if not held.any():
        return None
    order = predicted.sort(descending=True)
    taken = held[order.indices].double().cumsum(0)  # positives among the highest 1, 2, ... m
    f1 = 2 * taken / (torch.arange(1, len(said) + 1, dtype=torch.float64) + held.sum())
    follows = torch.cat([order.values[1:], torch.zeros(1, dtype=torch.float64)])
    f1[order.values == follows] = -1.0  # equals cannot be told apart
    best = int(f1.argmax())
    if f1[best] < 0:  # every prediction is 0: no threshold calls anything
        return None
    return ((order.values[best] + follows[best]) / 2).item(), f1[best].item()


def _doubles(predicted: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    if predicted.ndim != 1 or predicted.shape != said.shape:
        raise ShapeError(
            'predictions and judgements are both "m"', got=f"{tuple(predicted.shape)} and {tuple(said.shape)}"
        )
    predicted, said = predicted.detach().cpu().double(), said.detach().cpu().double()
    known = ~said.isnan()
    return predicted[known], said[known]
