"""Clips in memory: tensors and arrays, checked and brought to one form.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modalign.errors import DataError

_NEAR: Final = 1e-3  #: that floats may lie outside of 0 to 1, as rounding leaves them
_FIX: Final = "give uint8, or floats from 0 to 1, of shape (frames, 3, height, width)"


def check_clip(value: Tensor, *, field: str = "video") -> Tensor:
    """The same clip, if it is ``t 3 h w`` of uint8 or of finite floats from 0 to 1; else a `DataError`."""
    floats = value.is_floating_point()
    if value.ndim != 4 or value.shape[1] != 3 or not (floats or value.dtype == torch.uint8) or not value.numel():
        raise DataError(
            'a clip must be "t 3 h w" of floats or uint8',
            field=field,
            got=f"{value.dtype} of shape {tuple(value.shape)}",
            fix=_FIX,
        )
    if floats:
        least, most = (float(one) for one in value.detach().aminmax())
        if not (np.isfinite(least) and np.isfinite(most)):
            raise DataError("a clip must hold finite numbers", field=field, got="NaN or infinity", fix=_FIX)
        if least < -_NEAR or most > 1 + _NEAR:
            raise DataError(
                "floats of a clip must lie from 0 to 1", field=field, got=f"from {least:g} to {most:g}", fix=_FIX
            )
    return value


def from_array(value: np.ndarray, *, field: str = "video") -> Tensor:
    """A copy of an array ``t h w 3`` of uint8, as ``t 3 h w``."""
    if value.ndim != 4 or value.shape[3] != 3 or value.dtype != np.uint8 or not value.size:
        raise DataError(
            'an array of a clip must be "t h w 3" of uint8',
            field=field,
            got=f"{value.dtype} of shape {value.shape}",
            fix="put channels last, and scale to 0 to 255",
        )
    return rearrange(torch.from_numpy(np.array(value)), "t h w c -> t c h w").contiguous()


def as_bytes(frames: Tensor) -> Tensor:
    """Frames as uint8 from 0 to 255, on the CPU, ``t c h w``."""
    still = frames.detach().cpu()
    if still.dtype == torch.uint8:
        return still.contiguous()
    return (still.float().clamp(0, 1) * 255).round().byte().contiguous()
