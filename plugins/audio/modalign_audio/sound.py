"""Decoded samples to what models are given: checked, mixed, and resampled.

c channels, n samples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import reduce, repeat
from torch import Tensor

from modalign.errors import DataError, MissingExtra, ModelError
from modalign.integrations.mates import torch_mate
from modalign.roles import Content
from modalign_audio.config import LEAST_RATE, MOST_RATE, AudioSettings

FIELD = "audio"  #: what errors name where no narrower field is meant
_FILTER = 1 << 22  #: most numbers of a resampling filter: rates without a common divisor need one of gigabytes
_WIDTH = 13  #: samples at the lower of two rates that a filter is wide: 2 * 6 / 0.99, rounded up


def sound(samples: Tensor, rate: float, settings: AudioSettings, wanted: float | None = None) -> Content:
    """A decoded sound as content: float32 ``c n`` at the rate that is wanted, mixed as the settings say.

    samples: ``c n`` of floats, as decoded, from a file, a clip's track or memory.
    rate: of ``samples``, per second.
    wanted: samples per second the model takes; None takes the settings' rate, else the sound's own.

    >>> heard = sound(torch.tensor([[0.5, 0.0], [0.0, 0.5]]), 8000, AudioSettings())
    >>> heard.tensor, heard.seconds
    (tensor([[0.2500, 0.2500]]), 0.00025)
    """
    if samples.ndim != 2 or not samples.is_floating_point():
        raise DataError(
            'a sound must be "c n" of floats', field=FIELD, got=f"{samples.dtype} of shape {tuple(samples.shape)}"
        )
    own = checked_rate(rate)
    check_channels(samples.shape[0], settings)
    if not samples.shape[1]:
        raise DataError("a sound without samples", field=FIELD, got="a length of 0", fix="remove the row")
    check_length(samples.shape[1], own, settings)
    mixed = mix(samples.detach().cpu().float(), settings.channels)
    check_finite(mixed)  # a sum of channels may overflow, and so may the cast
    found = resample(mixed, own, _target(own, wanted, settings), settings)
    return Content(modality="audio", tensor=found[0], rate=float(found[1]), seconds=samples.shape[1] / own)


def checked_rate(rate: float, *, field: str = FIELD) -> int:
    """A rate that a sound can have, as a whole number."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate % 1:
        raise DataError("a rate is a whole number of samples per second", field=field, got=rate)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise DataError(
            f"a rate must lie between {LEAST_RATE} and {MOST_RATE} samples per second",
            field=field,
            got=f"{rate:g}",
            fix="convert the sound to a usual rate, or remove the row",
        )
    return int(rate)


def check_channels(count: int, settings: AudioSettings) -> None:
    """Refuse no channels, more than the settings allow, and what cannot become stereo."""
    if not 1 <= count <= settings.max_channels:
        raise DataError(
            f"a sound has 1 to {settings.max_channels} channels",
            field=FIELD,
            got=f"{count} channels",
            fix="mix it down, or raise media.audio.max_channels; in memory, channels come before samples",
        )
    if settings.channels == "stereo" and count > 2:
        raise DataError(
            "more than two channels have no known left and right",
            field=FIELD,
            got=f"{count} channels",
            fix="mix it to stereo before, or set media.audio.channels to mono",
        )


def most_samples(rate: int, settings: AudioSettings, channels: int | None = None) -> int:
    """How many samples of each channel that comes out the settings allow.

    channels: that come out; None for as many as the settings say.
    """
    width = channels or (1 if settings.channels == "mono" else 2)
    return min(math.floor(settings.max_seconds * rate), settings.max_decoded_bytes // (4 * width))


def check_length(samples: int, rate: int, settings: AudioSettings, channels: int | None = None) -> None:
    """Refuse more samples than the settings allow."""
    if samples > most_samples(rate, settings, channels):
        raise DataError(
            "a sound is longer than the settings allow",
            field=FIELD,
            got=f"at least {samples} samples at {rate} Hz, {samples / rate:.4g} s; allowed are "
            f"{settings.max_seconds:g} s and {settings.max_decoded_bytes} decoded bytes",
            fix="cut it, say which part with start and end, or raise media.audio.max_seconds or max_decoded_bytes",
        )


def check_finite(samples: Tensor) -> None:
    """Refuse NaN and infinity."""
    # NaN is the least and the most of what holds it; a mask of the whole would take a quarter of its memory
    if not torch.stack(samples.aminmax()).isfinite().all():
        raise DataError("a sound must hold finite numbers", field=FIELD, got="NaN or infinity", fix="remove the row")


def mix(samples: Tensor, channels: Literal["mono", "stereo"] | None) -> Tensor:
    """The mean of all channels, or left and right, or as they are, ``c n``."""
    if channels == "mono" and samples.shape[0] > 1:
        return reduce(samples, "c n -> 1 n", "mean")
    if channels == "stereo" and samples.shape[0] == 1:
        return repeat(samples, "1 n -> 2 n")
    return samples


def resample(samples: Tensor, rate: int, wanted: int, settings: AudioSettings) -> tuple[Tensor, int]:
    """The same sound, ``c ceil(n * wanted / rate)``, and its rate: torchaudio's windowed sinc with its defaults."""
    if rate == wanted:
        return samples.contiguous(), rate
    common = math.gcd(rate, wanted)
    one, other = rate // common, wanted // common
    if other * (one + _WIDTH * max(1.0, one / other)) > _FILTER:
        raise DataError(
            "this rate has too little in common with the one that is wanted",
            field=FIELD,
            got=f"{rate} and {wanted} Hz",
            fix="convert the sound to a usual rate before (ffmpeg -ar 16000)",
        )
    check_length(math.ceil(samples.shape[1] * wanted / rate), wanted, settings)
    found = _resampled(samples, rate, wanted).contiguous()
    check_finite(found)  # samples near the largest float overflow in the sum
    return found, wanted


def _target(own: int, wanted: float | None, settings: AudioSettings) -> int:
    if wanted is None:
        return settings.rate or own
    if wanted % 1 or not LEAST_RATE <= wanted <= MOST_RATE:
        raise ModelError(
            "a model takes a whole number of samples per second",
            got=f"{wanted:g} Hz; known are {LEAST_RATE} to {MOST_RATE}",
        )
    return int(wanted)


def _resampled(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """What torchaudio makes of it, or the error that says how to get torchaudio."""
    try:
        from torchaudio.functional import resample as library
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            raise _broken(error) from error
        raise MissingExtra(
            "resampling a sound needs torchaudio", got="not installed", fix=torch_mate("torchaudio")
        ) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise _broken(error) from error
    with torch.no_grad():
        return library(samples, rate, wanted)


def _broken(error: Exception) -> ModelError:
    return ModelError(
        "torchaudio, which resamples sounds, is installed and broken",
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        fix=torch_mate("torchaudio", again=True),
    )
