"""Pixels in memory, as tensors or arrays, checked and made 8-bit.

t frames, h w pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modalign.errors import DataError

_SLACK = 0.5 / 255  #: what a value may lie outside of 0 to 1 and still round to a level of its own


def check_frames(
    value: Tensor, *, pattern: str = "3 h w", field: str = "image", what: str = "a picture", fix: str | None = None
) -> None:
    """Raise a `DataError` unless these are pixels: uint8, or finite floats from 0 to 1, in this pattern.

    pattern: names of the axes, one of them the 3 of red, green and blue.
    what: they are, in words.
    """
    axes = pattern.split()
    if value.ndim != len(axes) or value.shape[axes.index("3")] != 3 or not value.numel():
        raise DataError(
            f'{what} must be "{pattern}"', field=field, got=f"{value.dtype} of shape {tuple(value.shape)}", fix=fix
        )
    if value.dtype == torch.uint8:
        return
    if not value.is_floating_point():
        raise DataError(
            f"{what} must be uint8, or floats from 0 to 1", field=field, got=str(value.dtype), fix="convert it to uint8"
        )
    low, high = (bound.item() for bound in value.detach().aminmax())  # a NaN anywhere makes both NaN
    if not np.isfinite([low, high]).all():
        raise DataError(f"{what} must hold finite numbers", field=field, got="NaN or infinity")
    if low < -_SLACK or high > 1 + _SLACK:
        raise DataError(
            f"{what} of floats must lie between 0 and 1",
            field=field,
            got=f"values from {low:.4g} to {high:.4g}",
            fix="clamp or rescale it, or give uint8",
        )


def frames_uint8(
    value: Tensor, *, pattern: str = "3 h w", field: str = "image", what: str = "a picture", fix: str | None = None
) -> Tensor:
    """The same pixels as uint8 on the CPU, floats rounded to the nearest of 255 levels; arguments as `check_frames`.

    >>> frames_uint8(torch.tensor([0.0, 0.5, 1.0])[:, None, None]).flatten().tolist()
    [0, 128, 255]
    """
    check_frames(value, pattern=pattern, field=field, what=what, fix=fix)
    value = value.detach().cpu()
    if value.dtype == torch.uint8:
        return value
    return (value.float().clamp(0, 1) * 255).round().byte()


def array_frames(value: np.ndarray, *, pattern: str = "h w 3", field: str = "image", what: str = "a picture") -> Tensor:
    """A tensor of its own, ``3`` before ``h w``, of an array whose last axis is the 3 of red, green and blue.

    pattern: of the array, `h w 3` or `t h w 3`.
    """
    right = value.ndim == len(pattern.split()) and value.shape[-1] == 3 and value.size
    if not right or value.dtype != np.uint8:
        raise DataError(
            f'{what} in an array must be "{pattern}" of uint8',
            field=field,
            got=f"{value.dtype} of shape {value.shape}",
            fix="convert it, or give a tensor or encoded bytes",
        )
    own = torch.from_numpy(np.array(value, copy=True))
    return rearrange(own, "... h w c -> ... c h w").contiguous()
