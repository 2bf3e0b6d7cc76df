"""A head of labels that a response may carry, several at once.

d width, a responses, k labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from modalign.heads.reading import Read, ReadingHead, linear, project


@final
class LabelHead(ReadingHead):
    """One logit per label; `answers` are the labels' probabilities, each by itself: they need not sum to 1.

    Unlike a reward a logit has a zero that means something, so there is a bias.

    width: of the states (d).
    dimensions: the labels.
    read: which state; see `ReadingHead`.

    >>> LabelHead(8, dimensions=("violence", "hate")).dimensions
    ('violence', 'hate')
    """

    def __init__(self, width: int, dimensions: Sequence[str] = ("harmful",), read: Read = "last") -> None:
        super().__init__(width, dimensions, read)
        self.score = linear(width, len(self.judged), bias=True)

    def numbers(self, state: Tensor) -> Tensor:
        return project(self.score, state)

    def answers(self, numbers: Tensor) -> dict[str, Tensor]:
        return super().answers(numbers.sigmoid())
