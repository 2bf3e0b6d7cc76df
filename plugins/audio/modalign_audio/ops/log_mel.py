"""Log-mel spectrogram of waveforms, as Whisper takes it.

b waveforms, n samples, k bins, m mels, t frames.

Whisper's frames always cover the whole of its window (30 s), and most sounds are shorter. The power of silence is 0, so
that its logarithm is the floor, -10: frames of padding are written and not computed. The others go through a real FFT;
from its result the kernel goes to the logarithm without keeping power or mels.
"""

from __future__ import annotations

import logging
import math
import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from modalign.errors import ConfigError, KernelUnavailable, ShapeError

Impl = Literal["auto", "reference", "kernel"]

FLOOR = 1e-10  #: least power of a mel
RANGE = 8.0  #: below the loudest mel, in powers of ten; what is fainter is raised to it

CHUNK = 512  #: frames at a time on a CPU: their windowed samples and spectrum stay in its cache

_log = logging.getLogger(__name__)


def log_mel(
    waveform: Tensor,
    filters: Tensor,
    *,
    n_fft: int = 400,
    hop: int = 160,
    length: int | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Log-mel spectrogram, ``b m t`` in float32: what `WhisperFeatureExtractor` gives, to 1e-5.

    Power of a centred, reflected, periodic Hann window's spectrum, its mels' base-10 logarithm, raised to 8 below the
    waveform's loudest, then ``(x + 4) / 4``; the last frame is dropped, so that t is ``length // hop`` for an even
    ``n_fft``.

    waveform: ``b n`` of floats. filters: ``k m`` with k = n_fft // 2 + 1. n_fft, hop: of the window, in samples.
    length: samples that the waveform is filled up to with silence; n by default.
    impl: `reference` is plain torch; `kernel` is Triton's, on a GPU or in its interpreter, and has no derivative;
        `auto` takes the kernel on a GPU where no derivative is needed.

    >>> log_mel(torch.zeros(1, 320), torch.ones(201, 2))
    tensor([[[-1.5000, -1.5000],
             [-1.5000, -1.5000]]])
    """
    if impl not in ("auto", "reference", "kernel"):
        raise ConfigError(f"log_mel has no implementation {impl!r}", got="auto, reference, kernel", fix="pass one")
    if impl == "auto":
        impl = "kernel" if unavailable(waveform) is None and waveform.is_cuda else "reference"
        _announce(impl)
    if impl == "reference":
        return reference(waveform, filters, n_fft=n_fft, hop=hop, length=length)
    if (problem := unavailable(waveform)) is not None:
        raise KernelUnavailable("the fused log_mel cannot run here", got=problem, fix="pass impl='reference'")
    from modalign_audio.ops.log_mel_kernel import logarithms

    framed, window, frames = _framed(waveform, filters, n_fft, hop, length)
    return _finished(logarithms(torch.fft.rfft(framed * window), filters.float()), frames)


def reference(
    waveform: Tensor, filters: Tensor, *, n_fft: int = 400, hop: int = 160, length: int | None = None
) -> Tensor:
    """The same in plain torch."""
    framed, window, frames = _framed(waveform, filters, n_fft, hop, length)
    weight = filters.float().T.contiguous()
    rows = max(1, CHUNK // waveform.shape[0]) if waveform.device.type == "cpu" else framed.shape[1]
    mels: list[Tensor] = []
    for part in framed.split(rows, 1):
        spectrum = torch.fft.rfft(part * window)  # b t k
        power = torch.addcmul(spectrum.real * spectrum.real, spectrum.imag, spectrum.imag)  # abs() would take a root
        mels.append(weight @ power.mT)  # b m t
    return _finished(torch.cat(mels, 2).clamp_(min=FLOOR).log10_(), frames)


def unavailable(waveform: Tensor) -> str | None:
    """Why the kernel cannot run on this waveform; None where it can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if not waveform.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"a waveform on {waveform.device.type}, and Triton's interpreter (TRITON_INTERPRET=1) is off"
    if waveform.requires_grad and torch.is_grad_enabled():
        return "a waveform that needs a gradient"
    return None


def _framed(waveform: Tensor, filters: Tensor, n_fft: int, hop: int, length: int | None) -> tuple[Tensor, Tensor, int]:
    """A view of every frame that holds a sample, ``b t n_fft``, the window, and how many frames there are in all."""
    length = _checked(waveform, filters, n_fft, hop, length)
    n, half = waveform.shape[1], n_fft // 2
    frames = (length + 2 * half - n_fft) // hop  # without the last one, which Whisper drops
    heard = min(frames, -(-(n + half) // hop))  # a frame begins half a window before its place
    stop = (heard - 1) * hop - half + n_fft  # behind the last sample of the last of them
    padded = waveform.new_zeros(waveform.shape[0], half + max(stop, n, half + 1), dtype=torch.float32)
    padded[:, half : half + n] = waveform
    padded[:, :half] = padded[:, half + 1 : 2 * half + 1].flip(1)
    if (over := stop - length) > 0:
        padded[:, half + length : half + stop] = padded[:, half + length - 1 - over : half + length - 1].flip(1)
    window = torch.hann_window(n_fft, device=waveform.device)
    return padded[:, : half + stop].unfold(1, n_fft, hop), window, frames


def _finished(logarithms: Tensor, frames: int) -> Tensor:
    """Scaled, raised to the range below the loudest, and filled up with what silence gives, ``b m frames``."""
    heard = logarithms.shape[2]
    scaled = logarithms.add_(4.0).div_(4.0)
    least = scaled.amax((1, 2), keepdim=True) - RANGE / 4.0
    found = scaled.new_empty(*scaled.shape[:2], frames)
    found[..., :heard] = torch.maximum(scaled, least)
    found[..., heard:] = least.clamp(min=(math.log10(FLOOR) + 4.0) / 4.0)
    return found


@cache
def _announce(impl: str) -> None:
    _log.info("log_mel: impl='auto' takes %r", impl)


def _checked(waveform: Tensor, filters: Tensor, n_fft: int, hop: int, length: int | None) -> int:
    """The length that a waveform is filled up to, once all arguments are found right."""
    if waveform.ndim != 2 or not waveform.shape[1] or not waveform.is_floating_point():
        raise ShapeError('waveform: expected floats "b n"', got=f"{waveform.dtype} of shape {tuple(waveform.shape)}")
    if n_fft < 2 or hop < 1:
        raise ConfigError("n_fft is at least 2 samples and hop at least 1", got=f"n_fft={n_fft}, hop={hop}")
    bins = n_fft // 2 + 1
    if filters.ndim != 2 or filters.shape[0] != bins:
        raise ShapeError(f'filters: expected "k m" with k={bins} for n_fft={n_fft}', got=tuple(filters.shape))
    n = waveform.shape[1]
    if length is not None and length < n:
        raise ConfigError("length is what a waveform is filled up to", got=f"{length}, below its {n} samples")
    length = n if length is None else length
    if length <= n_fft // 2 or length + 2 * (n_fft // 2) - n_fft < hop:
        raise ShapeError(
            f"waveform: expected more than {max(n_fft // 2, hop - 1)} samples, padding counted",
            got=length,
            fix="pass a longer `length`",
        )
    return length


def probe() -> tuple[Tensor, Tensor]:
    """Arguments to try it on: a tone, and filters that overlap."""
    place = torch.linspace(0, 1, 201)[:, None] - torch.linspace(0, 1, 8)
    return torch.sin(torch.arange(4000) / 7.0)[None], (1 - 7 * place.abs()).clamp(min=0)
