"""A linear reward head: numbers read from the state at a response's last token.

r rows, n tokens, d width, a responses, k dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from modalign.batch import Batch
from modalign.roles import Head


@final
class LinearHead(Head):
    """One number per dimension, linear in the last state of each response.

    Weights start as transformers' sequence classification heads do, normal with standard deviation 0.02, so that runs
    compare and the first step already moves the backbone; a bias starts at zero.

    width: of the states (d).
    dimensions: what the numbers are called.
    bias: whether to add one; a pair's difference does not see it.

    >>> head = LinearHead(8, dimensions=("helpfulness", "harmlessness"))
    >>> head.score.weight.shape
    torch.Size([2, 8])
    """

    def __init__(self, width: int, dimensions: Sequence[str] = ("reward",), bias: bool = False) -> None:
        super().__init__()
        self.dimensions = tuple(dimensions)
        self.score = nn.Linear(width, len(self.dimensions), bias=bias)
        nn.init.normal_(self.score.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        rows, indices = batch.ends.unbind(-1)
        last = states[rows, indices]  # a d
        bias = None if self.score.bias is None else self.score.bias.float()
        # float32 under autocast too: bf16 keeps 8 bits, and a pair's rewards often differ by less
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(last.float(), self.score.weight.float(), bias)
