"""When each frame of a clip is shown, from its packets: nothing is decoded for it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Final, final

from modalign.errors import DataError
from modalign_video.containers import Limits, container_of
from modalign_video.sampling import check_seconds

if TYPE_CHECKING:
    from av.video.stream import VideoStream

MOST_PACKETS: Final = 4_000_000  #: 18 hours at 60 frames per second
_NO_PTS: Final = frozenset({"avi"})  #: stores in which order frames are decoded, and not when they are shown
_SEEKS: Final = frozenset({"mov", "matroska"})  #: their keyframes can be trusted to start afresh


@final
@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When each frame of a clip is shown.

    ticks: of the frames, never falling; in units of ``base``.
    base: seconds of a tick.
    last: how long the last frame is shown, in ticks.
    keys: ticks of keyframes, rising; none where one cannot seek to them.
    clean: whether every frame has a time of its own.
    ordered: whether these times belong to the frames in the order in which they are decoded, for they have none
        themselves.
    """

    ticks: tuple[int, ...]
    base: Fraction
    last: int
    keys: tuple[int, ...]
    clean: bool
    ordered: bool

    @property
    def seconds(self) -> Fraction:
        """Of the whole clip."""
        return (self.ticks[-1] - self.ticks[0] + self.last) * self.base

    @property
    def slack(self) -> Fraction:
        """By how much its times may be wrong, as they are rounded to ticks, in seconds."""
        return min(self.base / 2, _median(list(self.ticks), 1) * self.base / 16)

    @property
    def starts(self) -> list[Fraction]:
        """When each frame begins, in seconds from the first."""
        return [(one - self.ticks[0]) * self.base for one in self.ticks]


def timeline(stream: VideoStream, limits: Limits, *, whole: bool) -> Timeline:
    """The timeline of an open clip; the container is read to its end.

    whole: whether all of the clip is sampled, so that what its header says of its length counts.
    """
    base = Fraction(stream.time_base or Fraction(1, 1000))
    container = container_of(stream)
    _check_claims(stream, base, limits, whole=whole)
    times: list[int | None] = []
    decoding: list[int | None] = []
    keys: list[int] = []
    lasting: dict[int, int] = {}
    seen = 0
    for packet in container.demux(stream):
        limits.check_time()
        if not packet.size:
            continue
        seen += 1
        if seen > MOST_PACKETS:
            raise _frames(f"more than {MOST_PACKETS}", limits)
        if packet.is_discard:
            continue
        times.append(packet.pts)
        decoding.append(packet.dts)
        if packet.pts is not None:
            lasting[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                keys.append(packet.pts)
    if not times:
        raise DataError(
            "a clip without frames",
            field=limits.field,
            got="0 packets of video",
            fix="remove the row, or mend the file",
        )
    if stream.frames > seen:
        raise DataError(
            "a clip that is cut off",
            field=limits.field,
            got=f"{seen} of {stream.frames} frames",
            fix="copy or download it again",
        )
    name = container.format.name.partition(",")[0]
    if name in _NO_PTS:
        return _by_order(decoding, base, _gap(stream, base))
    faults = _faults(times)
    if faults and limits.settings.timestamps == "error":
        raise bad_times(f"frames {', '.join(faults)}", limits)
    stated = [one for one in times if one is not None]
    if len(stated) < len(times):
        return _by_order(decoding, base, _gap(stream, base))
    ticks = sorted(set(stated))
    clean = len(ticks) == len(stated)
    return Timeline(
        ticks=tuple(ticks),
        base=base,
        last=lasting[ticks[-1]] or _median(ticks, _gap(stream, base)),
        keys=tuple(sorted(set(keys))) if clean and name in _SEEKS else (),
        clean=clean,
        ordered=False,
    )


def _faults(times: list[int | None]) -> list[str]:
    stated = [one for one in times if one is not None]
    counts = {
        "without a time": len(times) - len(stated),
        "with the time of another": len(stated) - len(set(stated)),
        "with a time below 0": sum(one < 0 for one in stated),
    }
    return [f"{what}: {count}" for what, count in counts.items() if count]


def _by_order(decoding: list[int | None], base: Fraction, gap: int) -> Timeline:
    """The k-th frame has the k-th decoding time; where those are missing too, frames are evenly spaced."""
    stated = sorted(one for one in decoding if one is not None)
    ticks = stated if len(stated) == len(decoding) else [number * gap for number in range(len(decoding))]
    return Timeline(ticks=tuple(ticks), base=base, last=_median(ticks, gap), keys=(), clean=False, ordered=True)


def _median(ticks: list[int], otherwise: int) -> int:
    return median_low([later - earlier for earlier, later in pairwise(ticks)] or [otherwise])


def bad_times(got: str, limits: Limits) -> DataError:
    """The error of a clip whose frames have no times that can be believed."""
    return DataError(
        "a clip whose frames have broken times",
        field=limits.field,
        got=got,
        fix="make it again with ffmpeg -i clip -fps_mode cfr, or set timestamps to sort",
    )


def _gap(stream: VideoStream, base: Fraction) -> int:
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (Fraction(rate) * base))) if rate else max(1, round(Fraction(1, 25) / base))


def _check_claims(stream: VideoStream, base: Fraction, limits: Limits, *, whole: bool) -> None:
    if stream.frames > MOST_PACKETS:
        raise _frames(str(stream.frames), limits)
    if whole:
        claims = [Fraction(stream.duration or 0) * base, Fraction(container_of(stream).duration or 0, 1_000_000)]
        check_seconds(max(claims), limits.settings, field=limits.field)


def _frames(got: str, limits: Limits) -> DataError:
    return DataError(
        "a clip of more frames than any settings allow",
        field=limits.field,
        got=f"{got}; at most {MOST_PACKETS}",
        fix="cut it into shorter clips",
    )
