"""Triton's kernel of `log_mel`: from a spectrum to the logarithm of its mels, nothing kept in between.

b waveforms, k bins, m mels, t frames.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalign_audio.ops.log_mel import FLOOR

_FRAMES, _BINS = 32, 32  #: a program's frames, and the bins it reads at a time
_PER_TEN = 0.30102999566398120  #: log10 of 2


def logarithms(spectrum: Tensor, filters: Tensor) -> Tensor:
    """Base-10 logarithms of the mels' power, ``b m t``.

    spectrum: ``b t k`` complex. filters: ``k m`` in float32.
    """
    parts = torch.view_as_real(spectrum.contiguous())  # b t k 2
    b, t, k = spectrum.shape
    m = filters.shape[1]
    found = torch.empty(b, m, t, device=spectrum.device, dtype=torch.float32)
    _kernel[(b, triton.cdiv(t, _FRAMES))](
        parts,
        filters.contiguous(),
        found,
        t,
        k,
        m,
        floor=FLOOR,  # pyright: ignore[reportArgumentType]
        per_ten=_PER_TEN,  # pyright: ignore[reportArgumentType]
        mels=max(16, triton.next_power_of_2(m)),  # pyright: ignore[reportArgumentType]
        frames=_FRAMES,  # pyright: ignore[reportArgumentType]
        bins=_BINS,  # pyright: ignore[reportArgumentType]
    )
    return found


@triton.jit
def _kernel(  # noqa: PLR0917 (its arguments are pointers and sizes)
    parts,
    filters,
    found,
    t,
    k,
    m,
    floor: tl.constexpr,
    per_ten: tl.constexpr,
    mels: tl.constexpr,
    frames: tl.constexpr,
    bins: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    frame = tl.program_id(1) * frames + tl.arange(0, frames)
    mel = tl.arange(0, mels)
    total = tl.zeros((mels, frames), dtype=tl.float32)
    for first in range(0, k, bins):
        at = first + tl.arange(0, bins)
        weight = tl.load(
            filters + at[None, :] * m + mel[:, None], mask=(at[None, :] < k) & (mel[:, None] < m), other=0.0
        )  # m k
        inside = (at[:, None] < k) & (frame[None, :] < t)
        place = parts + 2 * ((row * t + frame[None, :]) * k + at[:, None])
        real = tl.load(place, mask=inside, other=0.0)
        imaginary = tl.load(place + 1, mask=inside, other=0.0)
        # tf32 would lose the last half of the digits, and faint mels with them
        total += tl.dot(weight, real * real + imaginary * imaginary, input_precision="ieee")
    value = tl.log2(tl.maximum(total, floor)) * per_ten
    tl.store(
        found + (row * m + mel[:, None]) * t + frame[None, :],
        value,
        mask=(mel[:, None] < m) & (frame[None, :] < t),
    )
