"""The sound of a clip, cut to the stretch that its frames are taken from.

c channels, n samples.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from modalign.errors import DataError
from modalign.roles import Content
from modalign_video.containers import Limits, container_of, opened
from modalign_video.timeline import Timeline

if TYPE_CHECKING:
    from av.audio.stream import AudioStream


def soundtrack(file: BinaryIO, line: Timeline, begin: Fraction, end: Fraction, limits: Limits) -> Content | None:
    """The first track of sound at its own rate, from the moment ``begin`` on; None where a clip has none.

    A track that starts later begins with silence, so that sound and frames stay together; one that stops earlier is
    shorter than the stretch.

    begin, end: in seconds from the clip's first frame.
    """
    from modalign_audio.config import AudioSettings
    from modalign_audio.sound import sound

    with opened(file, limits) as video:
        tracks = container_of(video).streams.audio
        if not tracks:
            return None
        track = tracks[0]
        video.discard = type(video.discard).all
        track.discard = type(track.discard).default
        origin = Fraction(0) if line.ordered else line.ticks[0] * line.base
        rate = track.codec_context.sample_rate
        if not 0 < rate <= 384_000:
            raise DataError("a track of sound without a rate", field=limits.field, got=f"{rate} Hz")
        settings = AudioSettings(
            max_seconds=limits.settings.max_seconds, max_decoded_bytes=limits.settings.max_decoded_bytes
        )
        samples = _samples(track, origin + begin, origin + end, limits)
        if samples is None:
            return None
        return sound(samples, rate, settings)


def _samples(track: AudioStream, begin: Fraction, end: Fraction, limits: Limits) -> Tensor | None:
    """Samples between two moments of the container's time, ``c n`` of float32; None where there are none."""
    import av

    rate, most = track.codec_context.sample_rate, limits.settings.max_decoded_bytes
    blocks: list[Tensor] = []
    held, at = 0, 0  # bytes, and samples since ``begin`` that the next block starts at
    resampler = av.AudioResampler(format="fltp")
    length = round((end - begin) * rate)
    for frame in container_of(track).decode(track):
        limits.check_time()
        if frame.sample_rate != rate:
            raise DataError(
                "a track of sound that changes its rate",
                field=limits.field,
                got=f"{rate} and {frame.sample_rate} Hz",
                fix="encode the clip again",
            )
        if not blocks and frame.pts is not None and frame.time_base is not None:
            at = round((frame.pts * Fraction(frame.time_base) - begin) * rate)
        for one in resampler.resample(frame):
            block = torch.from_numpy(one.to_ndarray())  # c n
            if blocks and blocks[0].shape[0] != block.shape[0]:
                raise DataError(
                    "a track of sound that changes its channels",
                    field=limits.field,
                    got=f"{blocks[0].shape[0]} and {block.shape[0]}",
                    fix="encode the clip again",
                )
            kept = block[:, max(0, -at) : max(0, length - at)]
            silence = 0 if blocks else min(max(0, at), length)
            at += block.shape[1]
            held += 4 * block.shape[0] * (kept.shape[1] + silence)
            if held > most:
                raise DataError(
                    "a track of sound that is too long",
                    field=limits.field,
                    got=f"more than {most} bytes",
                    fix="say the clip's start and end, or raise max_decoded_bytes",
                )
            blocks += [block.new_zeros(block.shape[0], silence), kept]
        if at >= length:
            break
    if sum(block.shape[1] for block in blocks) == 0:
        return None
    return torch.cat(blocks, dim=1)
