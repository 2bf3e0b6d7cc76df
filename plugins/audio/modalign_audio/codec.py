"""Encoded sounds, decoded in blocks by libsndfile.

What comes out is counted as it is decoded: a header says what its writer likes, and a file that promises more than the
settings allow is refused before anything of it is decoded.

c channels, n samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import torch
from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError
from modalign_audio.config import AudioSettings
from modalign_audio.opening import opened
from modalign_audio.sound import FIELD, check_finite, check_length, mix

if TYPE_CHECKING:
    from soundfile import SoundFile

Channels = Literal["mono", "stereo"]

_BLOCK = 1 << 16  #: numbers decoded at a time
_EXACT = ("WAV", "WAVEX", "FLAC", "AIFF")  #: kinds whose samples can be counted without decoding what is before them
_ROUNDED = 0.01  #: seconds that an `end` may lie behind a sound's own: annotations are rounded


def check_header(part: Part, settings: AudioSettings) -> str:
    """The kind of file an encoded part is, once its size and header are found right; nothing is decoded."""
    with opened(part, settings) as file:
        clip(part.facts, file.samplerate, file.frames)
        return file.format


def decoded(part: Part, settings: AudioSettings, *, channels: Channels | None) -> tuple[Tensor, int]:
    """The samples of an encoded part, ``c n`` of float32, mixed while they are decoded, and their rate.

    channels: None keeps those of the file.
    """
    with opened(part, settings, whole=True) as file:
        start, stop = clip(part.facts, file.samplerate, file.frames)
        skip = 0 if file.format in _EXACT else start
        if start and not skip:
            file.seek(start)
        width = file.channels if channels is None else 1 if channels == "mono" else 2
        check_length(stop - start, file.samplerate, settings, width)
        kept = torch.empty(width, stop - start)  # c n; a page of it is taken when it is filled
        _fill(kept, file, settings, channels, skip)
        return kept, file.samplerate


def clip(facts: Mapping[str, object], rate: int, samples: int) -> tuple[int, int]:
    """The samples that a part's `start` and `end` mean, as a half-open range, or a `DataError`."""
    if samples < 1:
        raise DataError("a sound without samples", field=FIELD, got="a length of 0", fix="remove the row")
    start = round(cast(float, facts.get("start", 0.0)) * rate)
    end = facts.get("end")
    stop = samples if end is None else round(cast(float, end) * rate)
    for name, asked, most in (("start", start, samples - 1), ("end", stop, samples + round(_ROUNDED * rate))):
        if asked > most:
            raise DataError(
                f"the {name} lies behind the end of the sound",
                field=name,
                got=f"{facts[name]} of {samples / rate:.6g} seconds",
                fix=f"correct the {name}, or remove the row",
            )
    stop = min(stop, samples)
    if stop <= start:
        got = f"from {facts.get('start', 0.0)} to {end} at {rate} Hz"
        raise DataError("a part of a sound without samples", field="end", got=got)
    return start, stop


def _fill(kept: Tensor, file: SoundFile, settings: AudioSettings, channels: Channels | None, skip: int) -> None:
    """Decode into ``kept``, ``c n``, what comes after the samples that are skipped."""
    wanted = kept.shape[1]
    buffer = torch.empty(max(1, _BLOCK // file.channels), file.channels)
    at = -skip
    while at < wanted and (count := file.buffer_read_into(buffer.numpy(), "float32")):
        block = rearrange(buffer[:count], "n c -> c n")[:, max(0, -at) : wanted - at]
        begin, at = max(0, at), at + count
        if skip:
            check_length(min(skip, skip + at), file.samplerate, settings)  # what is skipped is decoded all the same
        if block.shape[1]:
            mixed = mix(block, channels)
            check_finite(mixed)
            kept[:, begin : begin + block.shape[1]] = mixed
    if at < wanted:
        raise DataError(
            "a sound ends before its header says",
            field=FIELD,
            got=f"{max(at, 0)} of {wanted} samples",
            fix="get the file again, or remove the row",
        )
