"""A clip's part to the frames that its settings ask for.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, cast, final

import torch
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError, ModelError
from modalign.files import File
from modalign.roles import Content, MediaSettings
from modalign_video.config import VideoSettings
from modalign_video.containers import Limits, check_length, container_of, length_of, opened
from modalign_video.frames import decode_frames, resized, target_size
from modalign_video.memory import as_bytes, check_clip
from modalign_video.orientation import orientation
from modalign_video.sampling import exact_rate, shown_at, stretch, wanted
from modalign_video.soundtrack import soundtrack
from modalign_video.timeline import Timeline, timeline
from modalign_video.torchcodec_frames import decode_with_torchcodec, usable
from modalign_video.world import RATE


def decode(part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
    """The frames of a part, uint8 ``t 3 h w``, with the time of each in seconds from the clip's first frame.

    The content's rate is the one its frames were taken at; None where the settings name their times.

    settings: `VideoSettings`.
    rate: frames per second that the model takes, in place of the settings' `frames`, `fps` or `times`.
    """
    if not isinstance(settings, VideoSettings):
        raise ModelError("clips are decoded with VideoSettings", got=type(settings).__name__)
    if rate is not None and not rate >= 1 / 1000:
        raise ModelError("a model takes clips at a rate above 0", got=f"{rate} frames per second")
    if isinstance(part.value, Tensor):
        return _from_memory(part, part.value, settings, rate)
    with encoded(part, settings) as file:
        return _from_file(file, part.facts, settings, rate)


@contextmanager
def encoded(part: Part, settings: VideoSettings) -> Iterator[BinaryIO]:
    """The open file of an encoded part, of an allowed size and with the SHA-256 that its row says."""
    value = part.value
    if not isinstance(value, File | bytes):
        raise ModelError("a clip is a file, bytes or a tensor", got=type(value).__name__)
    with value.open() if isinstance(value, File) else io.BytesIO(value) as file:
        check_length(length_of(file), settings.max_bytes)
        if "sha256" in part.facts:
            found = hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
            check_sha256(found, str(part.facts["sha256"]))
            file.seek(0)
        yield file


def check_sha256(found: str, said: str) -> None:
    """Raise where a clip is not the one that its row means."""
    if found != said:
        raise DataError(
            "a clip that is not the one its row means",
            field="sha256",
            got=f"SHA-256 {found}",
            fix="copy or download the file again, or mend the row",
        )


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which frames are taken.

    begin, end: of the stretch, in seconds.
    times: at which frames are taken.
    places: of the frames shown then.
    """

    begin: Fraction
    end: Fraction
    times: tuple[Fraction, ...]
    places: list[int]

    @property
    def unique(self) -> list[int]:
        """The places, each once."""
        return sorted(set(self.places))

    def rate(self, settings: VideoSettings, asked: float | None) -> float | None:
        """At which the frames were taken, per second."""
        if asked is not None or settings.fps is not None:
            return asked or settings.fps
        if settings.frames is None or self.end <= self.begin:
            return None
        return float(len(self.times) / (self.end - self.begin))


def _plan(
    *,
    starts: Sequence[Fraction],
    seconds: Fraction,
    slack: Fraction,
    size: tuple[int, int],
    facts: Mapping[str, object],
    settings: VideoSettings,
    rate: float | None,
) -> _Plan:
    """size: height and width of a frame as it is kept."""
    start, end = (cast("float | None", facts.get(name)) for name in ("start", "end"))
    begin, stop = stretch(seconds, seconds - starts[-1], start, end, settings)
    most = settings.max_decoded_bytes // (3 * size[0] * size[1])
    times = wanted(settings, begin, stop, most=most, rate=rate)
    return _Plan(begin=begin, end=stop, times=times, places=shown_at(times, starts, slack))


def _from_memory(part: Part, clip: Tensor, settings: VideoSettings, rate: float | None) -> Content:
    check_clip(clip)
    limits = Limits(settings)
    limits.check_pixels(clip.shape[3], clip.shape[2])
    own = exact_rate(cast(float, part.facts.get("fps", RATE)))
    starts = [number / own for number in range(clip.shape[0])]
    seconds = clip.shape[0] / own
    plan = _plan(
        starts=starts,
        seconds=seconds,
        slack=Fraction(0),
        size=target_size(clip.shape[2], clip.shape[3], settings),
        facts=part.facts,
        settings=settings,
        rate=rate,
    )
    frames = {}
    for place in plan.unique:
        limits.check_time()
        frames[place] = resized(as_bytes(clip[place]), settings)
    return Content(
        modality="video",
        tensor=torch.stack([frames[place] for place in plan.places]),
        rate=plan.rate(settings, rate),
        times=tuple(float(starts[place]) for place in plan.places),
        seconds=float(seconds),
    )


def _from_file(file: BinaryIO, facts: Mapping[str, object], settings: VideoSettings, rate: float | None) -> Content:
    limits = Limits(settings)
    with opened(file, limits) as stream:
        line = timeline(stream, limits, whole="end" not in facts)
        stored = stream.codec_context.height, stream.codec_context.width
    plan = _plan(
        starts=line.starts,
        seconds=line.seconds,
        slack=line.slack,
        size=target_size(*stored, settings),
        facts=facts,
        settings=settings,
        rate=rate,
    )
    frames, found = _decoded(file, line, plan.unique, limits)
    where = {place: number for number, place in enumerate(plan.unique)}
    chosen = [where[place] for place in plan.places]
    tracks = {}
    if settings.audio:
        sound = soundtrack(file, line, plan.begin, plan.end, limits)
        tracks = {} if sound is None else {"audio": sound}
    return Content(
        modality="video",
        tensor=torch.stack([frames[number] for number in chosen]),
        rate=plan.rate(settings, rate),
        times=tuple(float(line.starts[found[number]]) for number in chosen),
        seconds=float(line.seconds),
        tracks=tracks,
    )


def _decoded(file: BinaryIO, line: Timeline, places: list[int], limits: Limits) -> tuple[list[Tensor], list[int]]:
    """The frames at these places, and the places of those found for them."""
    if limits.settings.backend != "pyav":
        with opened(file, limits) as stream:
            number = stream.index
            first = next(container_of(stream).decode(stream), None)
            mirrored = first is not None and orientation(first)[1]
        if usable(line, mirrored, limits.settings):
            file.seek(0)
            frames = decode_with_torchcodec(file, number, line, places, limits)
            if frames is not None:
                return frames, places
    with opened(file, limits) as stream:
        return decode_frames(stream, line, places, limits)
