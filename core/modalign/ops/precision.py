"""Arithmetic that ops share: float32 at least where sums are long, whatever the type of the matmul."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


def wide(value: Tensor) -> Tensor:
    """The value in float32, or float64 where it is: softmax over a large vocabulary loses mass in bf16."""
    return value if value.dtype == torch.float64 else value.float()


def autocast_dtype(value: Tensor) -> torch.dtype | None:
    """The type autocast would run a matmul of this value in; None outside autocast."""
    kind = value.device.type
    if value.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


@final
class MatmulSum:
    """A sum of matmuls over chunks, in float32 at least, shaped and typed like a parameter.

    >>> total = MatmulSum(torch.zeros(2, 1, dtype=torch.bfloat16))
    >>> total.add(torch.ones(2, 3), torch.ones(3, 1))
    >>> total.result().dtype, total.result().flatten().tolist()
    (torch.bfloat16, [3.0, 3.0])
    """

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.sum: Tensor | None = None

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add ``left @ right``."""
        if self.sum is None:
            self.sum = wide(left @ right)
        elif left.dtype == self.sum.dtype:
            self.sum.addmm_(left, right)
        else:
            self.sum.add_(left @ right)

    def result(self) -> Tensor:
        """The sum; zeros where nothing was added, so that every rank has a gradient."""
        return torch.zeros_like(self.like) if self.sum is None else self.sum.to(self.like.dtype).view_as(self.like)
