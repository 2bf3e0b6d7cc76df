"""The Triton kernels of `squared_error`; they lie by themselves because Triton is imported when they are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK, _BLOCKS = 1024, 4  # values of a step, and steps of a program


@triton.jit
def _wide(pointers, inside, double: tl.constexpr):
    """Values in float64, by way of float32: nothing else is sure to become one from 16 bits."""
    found = tl.load(pointers, mask=inside, other=0.0)
    return found if double else found.to(tl.float32).to(tl.float64)


@triton.jit
def _errors(  # noqa: PLR0917 (Triton's kernels take positions)
    prediction,
    target,
    out,  # b parts
    values,  # of a sample
    parts,  # of a sample
    double_prediction: tl.constexpr,
    double_target: tl.constexpr,
    block: tl.constexpr,
    blocks: tl.constexpr,
):
    """One program adds up one part of a sample."""
    number = tl.program_id(0).to(tl.int64)
    sample = number // parts
    start = (number % parts) * (block * blocks)
    total = tl.zeros((block,), tl.float64)
    for step in range(blocks):
        value = start + step * block + tl.arange(0, block)
        inside = value < values
        place = sample * values + value
        error = _wide(prediction + place, inside, double_prediction) - _wide(target + place, inside, double_target)
        total += error * error
    tl.store(out + number, tl.sum(total, 0))


@triton.jit
def _totals(out, parts, totals, block: tl.constexpr):
    """One program adds up the parts of one sample, in an order that depends on nothing beside it."""
    sample = tl.program_id(0).to(tl.int64)
    total = tl.zeros((block,), tl.float64)
    for start in range(0, parts, block):
        part = start + tl.arange(0, block)
        total += tl.load(out + sample * parts + part, mask=part < parts, other=0.0)
    tl.store(totals + sample, tl.sum(total, 0))


@triton.jit
def _slopes(  # noqa: PLR0917 (Triton's kernels take positions)
    one,
    other,
    grad,  # b
    out,
    values,  # of a sample
    parts,  # of a sample
    double_one: tl.constexpr,
    double_other: tl.constexpr,
    block: tl.constexpr,
):
    """One program writes one part of a sample."""
    number = tl.program_id(0).to(tl.int64)
    sample = number // parts
    value = (number % parts) * block + tl.arange(0, block)
    inside = value < values
    place = sample * values + value
    error = _wide(one + place, inside, double_one) - _wide(other + place, inside, double_other)
    slope = tl.load(grad + sample) * (2 * error)
    if not double_one:
        slope = slope.to(tl.float32)
    tl.store(out + place, slope.to(out.dtype.element_ty), mask=inside)


def launch(prediction: Tensor, target: Tensor) -> Tensor:
    """Sums of squared differences of each sample, ``b`` in float64."""
    samples = prediction.shape[0]
    totals = torch.zeros(samples, dtype=torch.float64, device=prediction.device)
    if not prediction.numel():
        return totals
    values = prediction.numel() // samples
    parts = triton.cdiv(values, _BLOCK * _BLOCKS)
    sums = torch.empty(samples, parts, dtype=torch.float64, device=prediction.device)
    _errors[(samples * parts,)](
        prediction,
        target,
        sums,
        values,
        parts,
        double_prediction=prediction.dtype == torch.float64,  # pyright: ignore[reportArgumentType]
        double_target=target.dtype == torch.float64,  # pyright: ignore[reportArgumentType]
        block=_BLOCK,  # pyright: ignore[reportArgumentType]
        blocks=_BLOCKS,  # pyright: ignore[reportArgumentType]
    )
    _totals[(samples,)](sums, parts, totals, block=_BLOCK)  # pyright: ignore[reportArgumentType]
    return totals


def launch_slopes(one: Tensor, other: Tensor, grad: Tensor) -> Tensor:
    """``2 * grad * (one - other)``, ``b ...`` of the type of the first: the gradient of the sums to it."""
    out = torch.empty_like(one)
    if not one.numel():
        return out
    values = one.numel() // one.shape[0]
    parts = triton.cdiv(values, _BLOCK)
    _slopes[(one.shape[0] * parts,)](
        one,
        other,
        grad.contiguous(),
        out,
        values,
        parts,
        double_one=one.dtype == torch.float64,  # pyright: ignore[reportArgumentType]
        double_other=other.dtype == torch.float64,  # pyright: ignore[reportArgumentType]
        block=_BLOCK,  # pyright: ignore[reportArgumentType]
    )
    return out
