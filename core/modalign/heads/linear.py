"""A linear reward head: one number per dimension, read from a state of the response.

d width, a responses, k dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from modalign.heads.reading import Read, ReadingHead, linear, project


@final
class LinearHead(ReadingHead):
    """One number per dimension, linear in a state of each response.

    Weights start as transformers' sequence classification heads do, normal with standard deviation 0.02, so that runs
    compare and the first step already moves the backbone; a bias starts at zero.

    width: of the states (d).
    dimensions: what the numbers are called.
    bias: whether to add one; a pair's difference does not see it.
    read: which state; see `ReadingHead`.

    >>> head = LinearHead(8, dimensions=("helpfulness", "harmlessness"))
    >>> head.score.weight.shape
    torch.Size([2, 8])
    """

    def __init__(
        self, width: int, dimensions: Sequence[str] = ("reward",), bias: bool = False, read: Read = "last"
    ) -> None:
        super().__init__(width, dimensions, read, bias=bias)
        self.score = linear(width, len(self.judged), bias=bias)

    def numbers(self, state: Tensor) -> Tensor:
        return project(self.score, state)
