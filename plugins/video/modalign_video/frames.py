"""The frames of a clip that are wanted, decoded by PyAV: those that are not are dropped as they come.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

import torch
from einops import rearrange
from torch import Tensor

from modalign.errors import DataError
from modalign_video.config import VideoSettings
from modalign_video.containers import Limits, container_of
from modalign_video.orientation import orientation, turn
from modalign_video.timeline import Timeline, bad_times

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@final
class Wanted:
    """Of each wanted frame the best that came out of the decoder: the last one that is shown no later.

    A wanted frame that never comes (lost, or never meant to be shown) is so replaced by the one that stays on screen.

    marks: what tells the wanted frames from others, rising: their ticks, or their places in the clip.
    """

    def __init__(self, marks: Sequence[int], limits: Limits) -> None:
        self._marks, self._limits = marks, limits
        self._best: dict[int, int] = {}
        self._kept: dict[int, Tensor] = {}
        self._pending: tuple[int, VideoFrame] | None = None
        self._size: tuple[int, int] | None = None
        self._exact = 0

    def offer(self, mark: int, frame: VideoFrame) -> None:
        """Look at a frame that was decoded."""
        self._limits.check_pixels(frame.width, frame.height)
        place = bisect_left(self._marks, mark)
        if place == len(self._marks) or self._best.get(place, mark - 1) >= mark:
            return
        if self._pending is not None and self._pending[0] != place:
            self._flush()
        self._best[place], self._pending = mark, (place, frame)
        self._exact += mark == self._marks[place]

    def has(self, mark: int) -> bool:
        """Whether the very frame was found."""
        return self._best.get(bisect_left(self._marks, mark)) == mark

    @property
    def complete(self) -> bool:
        """Whether every wanted frame was found, so that nothing better can come."""
        return self._exact == len(self._marks)

    def frames(self) -> tuple[list[Tensor], list[int]]:
        """Of each mark, the frame ``c h w`` and the mark of what was found; what lies before the first takes that."""
        self._flush()
        if not self._best:
            raise DataError(
                "a clip of which no frame can be decoded",
                field=self._limits.field,
                got="no frame",
                fix="mend or replace it",
            )
        held = sorted(self._best)
        places = [held[max(0, bisect_right(held, place) - 1)] for place in range(len(self._marks))]
        return [self._kept[place] for place in places], [self._best[place] for place in places]

    def _flush(self) -> None:
        if self._pending is None:
            return
        place, frame = self._pending
        self._pending = None
        if frame.is_corrupt:
            raise DataError(
                "a frame that is damaged",
                field=self._limits.field,
                got=f"the one at {0.0 if frame.time is None else frame.time:g} seconds",
                fix="copy or download it again",
            )
        size = frame.width, frame.height
        if self._size not in (None, size):
            raise DataError(
                "a clip whose frames change their size",
                field=self._limits.field,
                got=f"{self._size} and {size} pixels",
                fix="scale it to one size: ffmpeg -i clip -vf scale=640:360 out.mp4",
            )
        self._size = size
        pixels = rearrange(torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)), "h w c -> c h w")
        turned = turn(pixels, *orientation(frame, field=self._limits.field))
        self._kept[place] = resized(turned, self._limits.settings)


def resized(frame: Tensor, settings: VideoSettings) -> Tensor:
    """A frame ``c h w`` with the longer or shorter edge that the settings ask for; bilinear, with antialiasing."""
    height, width = target_size(frame.shape[1], frame.shape[2], settings)
    if (height, width) == tuple(frame.shape[1:]):
        return frame.contiguous()
    from torchvision.transforms.v2.functional import resize

    return resize(frame, [height, width], antialias=True).contiguous()


def target_size(height: int, width: int, settings: VideoSettings) -> tuple[int, int]:
    """Height and width of frames that are kept; both edges are scaled alike and have at least one pixel.

    >>> target_size(480, 640, VideoSettings(longest_edge=320))
    (240, 320)
    """
    edge = settings.longest_edge or settings.shortest_edge
    if edge is None:
        return height, width
    of = max(height, width) if settings.longest_edge else min(height, width)
    return max(1, round(height * edge / of)), max(1, round(width * edge / of))


def decode_frames(
    stream: VideoStream, line: Timeline, indices: Sequence[int], limits: Limits
) -> tuple[list[Tensor], list[int]]:
    """The frames at places of a timeline, each ``c h w``, and the places of those that were found for them.

    stream: opened afresh.
    indices: places in ``line.ticks``, rising, each once.
    """
    count = _Count(limits)
    if line.ordered:
        wanted = Wanted(indices, limits)
        for number, frame in enumerate(_decoded(stream, count)):
            wanted.offer(number, frame)
            if number >= indices[-1]:
                break
        return wanted.frames()
    marks = [line.ticks[index] for index in indices]
    wanted = _sought(stream, line, marks, count) if line.keys else None
    if wanted is None:
        wanted = Wanted(marks, limits)
        _read_through(stream, line, wanted, count)
    frames, found = wanted.frames()
    return frames, [max(0, bisect_right(line.ticks, mark) - 1) for mark in found]


@final
class _Count:
    """What holds the number of decoded frames to its limit."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self._left = limits, limits.settings.max_frames

    def one(self) -> None:
        self.limits.check_time()
        self._left -= 1
        if self._left < 0:
            raise DataError(
                "a clip of too many frames",
                field=self.limits.field,
                got=f"more than {self.limits.settings.max_frames} to decode",
                fix="say its start and end, or raise max_frames",
            )


def _decoded(stream: VideoStream, count: _Count) -> Iterator[VideoFrame]:
    for frame in container_of(stream).decode(stream):
        count.one()
        yield frame


def _read_through(stream: VideoStream, line: Timeline, wanted: Wanted, count: _Count) -> None:
    """From the beginning until every wanted frame was found; to the end where one does not come."""
    if line.keys:
        container_of(stream).seek(line.ticks[0], stream=stream)
    before: int | None = None
    for frame in _decoded(stream, count):
        mark = frame.pts
        disordered = mark is None or (before is not None and mark <= before)
        if disordered and count.limits.settings.timestamps == "error":
            raise bad_times(f"a frame at tick {mark} after one at tick {before}", count.limits)
        if mark is None:  # every packet had a time, and the decoder lost it: it follows the one before it
            mark = line.ticks[0] if before is None else before + 1
        wanted.offer(mark, frame)
        before = mark
        if wanted.complete:
            break


def _sought(stream: VideoStream, line: Timeline, marks: Sequence[int], count: _Count) -> Wanted | None:
    """The same by leaps to the keyframe before each wanted frame; None where one does not land as it should."""
    wanted = Wanted(marks, count.limits)
    frames: Iterator[VideoFrame] = iter(())
    at: int | None = None
    for mark in marks:
        if at is not None and at >= mark:
            if not wanted.has(mark):
                return None
            continue
        place = bisect_right(line.keys, mark) - 1
        if place < 0:
            return None
        if at is None or line.keys[place] > at:
            container_of(stream).seek(line.keys[place], stream=stream)
            frames, at = _decoded(stream, count), None
        for frame in frames:
            if frame.pts is None or (at is not None and frame.pts <= at):
                return None
            at = frame.pts
            wanted.offer(at, frame)
            if at >= mark:
                break
        if not wanted.has(mark):
            return None
    return wanted
