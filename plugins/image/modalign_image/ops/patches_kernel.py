"""The Triton kernels of `patches`; they lie by themselves because Triton is imported when they are."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024  # values that a program of `_whole` writes
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it once too, where a kernel is defined


def interpreted() -> bool:
    """Whether the kernel runs in Triton's interpreter, on the CPU."""
    return _INTERPRETED


@triton.jit
def _patches(  # noqa: PLR0917 (Triton's kernels take positions)
    x,
    factor,
    shift,
    out,
    stride_b,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    frames,  # of x; what lies beyond is the last one again
    grid_t,
    grid_h,  # of merged squares
    grid_w,
    merge: tl.constexpr,
    temporal: tl.constexpr,
    patch: tl.constexpr,
    values: tl.constexpr,  # of a row: c temporal p q
    block: tl.constexpr,
):
    """One program writes one row: a patch through its frames."""
    row = tl.program_id(0).to(tl.int64)
    # row = ((((b t) h) w) m) n, the last one fastest
    right = row % merge
    rest = row // merge
    down = rest % merge
    rest = rest // merge
    square_w = rest % grid_w
    rest = rest // grid_w
    square_h = rest % grid_h
    rest = rest // grid_h
    t = rest % grid_t
    b = rest // grid_t
    top = (square_h * merge + down) * patch
    left = (square_w * merge + right) * patch

    value = tl.arange(0, block)
    inside = value < values
    q = value % patch
    p = (value // patch) % patch
    f = (value // (patch * patch)) % temporal
    c = value // (patch * patch * temporal)
    frame = tl.minimum(t * temporal + f, frames - 1)
    at = b * stride_b + frame * stride_t + c * stride_c + (top + p) * stride_h + (left + q) * stride_w
    pixels = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    found = pixels * tl.load(factor + c, mask=inside, other=0.0) - tl.load(shift + c, mask=inside, other=0.0)
    tl.store(out + row * values + value, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _whole(  # noqa: PLR0917 (Triton's kernels take positions)
    x,
    factor,
    shift,
    out,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    channels,
    height,
    width,
    values,  # of all pictures
    block: tl.constexpr,
):
    """One program writes a block of values, the last axis fastest."""
    value = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = value < values
    w = value % width
    rest = value // width
    h = rest % height
    rest = rest // height
    c = rest % channels
    b = rest // channels
    at = b * stride_b + c * stride_c + h * stride_h + w * stride_w
    pixels = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    found = pixels * tl.load(factor + c, mask=inside, other=0.0) - tl.load(shift + c, mask=inside, other=0.0)
    tl.store(out + value, found.to(out.dtype.element_ty), mask=inside)


def launch(
    x: Tensor, factor: Tensor, shift: Tensor, *, patch: int, merge: int, temporal: int, dtype: torch.dtype
) -> Tensor:
    """Rows of patches of clips ``b t c h w``; arguments as the twin's."""
    b, t, c, h, w = x.shape
    grid_t, grid_h, grid_w = -(-t // temporal), h // (patch * merge), w // (patch * merge)
    rows = grid_t * grid_h * grid_w * merge * merge  # of one clip
    values = c * temporal * patch * patch
    out = torch.empty(b, rows, values, dtype=dtype, device=x.device)
    if not out.numel():
        return out
    stride_b, stride_t, stride_c, stride_h, stride_w = x.stride()
    _patches[(b * rows,)](
        x,
        factor,
        shift,
        out,
        stride_b,
        stride_t,
        stride_c,
        stride_h,
        stride_w,
        t,
        grid_t,
        grid_h,
        grid_w,
        merge=merge,  # pyright: ignore[reportArgumentType]
        temporal=temporal,  # pyright: ignore[reportArgumentType]
        patch=patch,  # pyright: ignore[reportArgumentType]
        values=values,  # pyright: ignore[reportArgumentType]
        block=triton.next_power_of_2(values),  # pyright: ignore[reportArgumentType]
    )
    return out


def launch_whole(x: Tensor, factor: Tensor, shift: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Normalised pixels of pictures ``b c h w``; arguments as the twin's."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    values = out.numel()
    if not values:
        return out
    _, c, h, w = x.shape
    stride_b, stride_c, stride_h, stride_w = x.stride()
    _whole[(-(-values // _BLOCK),)](
        x,
        factor,
        shift,
        out,
        stride_b,
        stride_c,
        stride_h,
        stride_w,
        c,
        h,
        w,
        values,
        block=_BLOCK,  # pyright: ignore[reportArgumentType]
    )
    return out
