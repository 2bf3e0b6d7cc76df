"""Spectrograms as vocoders of the kind of HiFi-GAN are given them (Kong et al., https://arxiv.org/abs/2010.05646).

b sounds, s samples, t frames, m bands.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from modalign.errors import MissingExtra
from modalign.integrations.mates import torch_mate

_FLOOR = 1e-5  #: amplitudes below it are silence


def log_mel(sound: Tensor, rate: int, *, bands: int, size: int, hop: int) -> Tensor:
    """Logarithms of the amplitudes in bands of mel from 0 to half the rate, ``b t m`` with a frame for each hop.

    The sound is mirrored at both ends, so that frame i is about the samples from i times the hop; bands are Slaney's,
    each of area 1.

    sound: ``b s``, more than half of ``size`` long.
    rate: samples per second.
    size: samples that a frame looks at.

    >>> log_mel(torch.zeros(1, 1600), 16000, bands=4, size=1024, hop=160)[0, :1]
    tensor([[-11.5129, -11.5129, -11.5129, -11.5129]])
    """
    edge = (size - hop) // 2
    mirrored = nn.functional.pad(sound.float(), (edge, edge), mode="reflect")
    window = torch.hann_window(size, device=sound.device)
    seen = torch.stft(mirrored, size, hop, size, window, center=False, return_complex=True).abs()  # b size/2+1 t
    found = rearrange(seen, "b f t -> b t f") @ _bands(rate, bands, size).to(sound.device)
    return found.clamp(min=_FLOOR).log()


def _bands(rate: int, bands: int, size: int) -> Tensor:
    """How much each frequency counts in each band, ``size/2+1 m``."""
    try:
        from torchaudio.functional import melscale_fbanks
    except (ImportError, OSError) as error:
        raise MissingExtra(
            "spectrograms need torchaudio", got=f"{type(error).__name__}: {error}", fix=torch_mate("torchaudio")
        ) from error
    return melscale_fbanks(size // 2 + 1, 0.0, rate / 2, bands, rate, norm="slaney", mel_scale="slaney")
