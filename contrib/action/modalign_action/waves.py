"""Numbers as sines and cosines, which networks can tell apart.

n numbers, w width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def waves(numbers: Tensor, width: int) -> Tensor:
    """Sines and cosines ``n w`` in float64 of numbers ``n``, w even: from waves of 2 pi to waves of 10^4 times that.

    Vaswani et al., https://arxiv.org/abs/1706.03762, section 3.5.

    >>> waves(torch.tensor([0, 3]), 4).shape
    torch.Size([2, 4])
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64, device=numbers.device) * (-math.log(1e4) / half))
    angles = numbers.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
