"""Which frames of a clip are taken: pure arithmetic over exact times.

All times are fractions of a second from the clip's first frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from modalign.errors import DataError
from modalign_video.config import VideoSettings


def wanted(
    settings: VideoSettings, begin: Fraction, end: Fraction, *, most: int, rate: float | None = None
) -> tuple[Fraction, ...]:
    """The times at which frames are taken, rising.

    begin, end: the stretch that is sampled.
    most: times that may be asked for.
    rate: frames per second that a model takes, in place of what the settings say.

    >>> [float(one) for one in wanted(VideoSettings(frames=2), Fraction(0), Fraction(1), most=9)]
    [0.25, 0.75]
    >>> [float(one) for one in wanted(VideoSettings(fps=2), Fraction(0), Fraction(1), most=9)]
    [0.0, 0.5]
    """
    span = end - begin
    fps = settings.fps if rate is None else rate
    if fps is not None:
        each = exact_rate(fps)
        count = max(1, ceil(span * each))  # the end itself shows nothing
        _check_count(count, most)
        return tuple(begin + number / each for number in range(count))
    if settings.times is not None:
        _check_count(len(settings.times), most)
        found = tuple(Fraction(one) for one in settings.times)
        late = next((one for one in found if begin + one >= end and one > 0), None)
        if late is not None:
            raise DataError(
                "a time after the clip's end",
                field="times",
                got=f"{float(late):g} of {float(span):g} seconds",
                fix="ask for earlier times",
            )
        return tuple(begin + one for one in found)
    assert settings.frames is not None  # the settings hold one of the three
    _check_count(settings.frames, most)
    # the middle of each span: as far from its neighbours as can be, so that rounding cannot take the wrong frame
    return tuple(begin + span * (2 * number + 1) / (2 * settings.frames) for number in range(settings.frames))


def shown_at(times: Sequence[Fraction], starts: Sequence[Fraction], slack: Fraction) -> list[int]:
    """For each time, which frame is shown then: the last that starts no later; the first one where none does.

    starts: of the frames, rising.
    slack: by how much a frame may start too late, as the clip's times are rounded.

    >>> shown_at([Fraction(1, 3), Fraction(2, 3)], [Fraction(0), Fraction(333, 1000), Fraction(667, 1000)],
    ...          Fraction(1, 2000))
    [1, 2]
    """
    return [max(0, bisect_right(starts, one + slack) - 1) for one in times]


def stretch(
    seconds: Fraction, gap: Fraction, start: float | None, end: float | None, settings: VideoSettings
) -> tuple[Fraction, Fraction]:
    """The stretch of a clip that is sampled: the whole, or what a row says of it.

    seconds: of the whole clip.
    gap: of the last frame; an end may be that much late, as annotations are rounded.
    start, end: in seconds, as the row says.
    """
    begin = Fraction(start or 0)
    stop = seconds if end is None else min(Fraction(end), seconds)
    if begin and begin >= seconds:
        raise DataError(
            "a stretch that starts after the clip's end",
            field="start",
            got=f"{float(begin):g} of {float(seconds):g} seconds",
            fix="mend the row's start, or take the whole clip",
        )
    if end is not None and Fraction(end) > seconds + gap:
        raise DataError(
            "a stretch that ends after the clip's end",
            field="end",
            got=f"{end:g} of {float(seconds):g} seconds",
            fix="mend the row's end, or leave it out",
        )
    check_seconds(stop - begin, settings)
    return begin, stop


def check_seconds(seconds: Fraction, settings: VideoSettings, *, field: str = "video") -> None:
    """Raise where a clip, or the stretch that is meant, is too long."""
    if seconds > Fraction(settings.max_seconds):
        raise DataError(
            "a clip that is too long",
            field=field,
            got=f"{float(seconds):g} seconds; at most {settings.max_seconds:g} are sampled",
            fix="say its start and end, or raise max_seconds",
        )


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise DataError(
            "more frames than may be kept",
            field="video",
            got=f"{count}; {most} fit in max_decoded_bytes",
            fix="take fewer, shrink them by longest_edge, or raise max_decoded_bytes",
        )


def exact_rate(value: float) -> Fraction:
    """A rate as it is meant: 29.97 as it is written, 23.976023976 as 24000/1001.

    >>> exact_rate(29.97), exact_rate(30000 / 1001)
    (Fraction(2997, 100), Fraction(30000, 1001))
    """
    return Fraction(value).limit_denominator(1001)
