"""The Triton kernel of `add_noise`; it lies by itself because Triton is imported when it is."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values that a program writes, of each sum


@triton.jit
def _sums(  # noqa: PLR0917 (Triton's kernels take positions)
    x,
    y,
    matrix,  # b r 2
    first,
    second,  # the first again where there is no second
    values,  # of a sample
    parts,  # of a sample
    rows: tl.constexpr,
    double: tl.constexpr,
    block: tl.constexpr,
):
    """One program writes one part of a sample."""
    number = tl.program_id(0).to(tl.int64)
    sample = number // parts
    value = (number % parts) * block + tl.arange(0, block)
    inside = value < values
    place = sample * values + value
    left = tl.load(x + place, mask=inside, other=0.0)
    right = tl.load(y + place, mask=inside, other=0.0)
    if not double:
        left, right = left.to(tl.float32), right.to(tl.float32)
    at = matrix + sample * rows * 2
    found = tl.load(at) * left + tl.load(at + 1) * right
    tl.store(first + place, found.to(first.dtype.element_ty), mask=inside)
    if rows > 1:
        found = tl.load(at + 2) * left + tl.load(at + 3) * right
        tl.store(second + place, found.to(second.dtype.element_ty), mask=inside)


def launch(x: Tensor, y: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
    """For each row of the matrix of a sample, ``b r 2``, the sum of both tensors times its numbers, ``b ...``."""
    rows = matrix.shape[1]
    found = tuple(torch.empty_like(x) for _ in range(rows))
    if not x.numel():
        return found
    values = x.numel() // x.shape[0]
    parts = triton.cdiv(values, _BLOCK)
    _sums[(x.shape[0] * parts,)](
        x,
        y,
        matrix,
        found[0],
        found[-1],
        values,
        parts,
        rows=rows,  # pyright: ignore[reportArgumentType]
        double=x.dtype == torch.float64,  # pyright: ignore[reportArgumentType]
        block=_BLOCK,  # pyright: ignore[reportArgumentType]
    )
    return found
