"""The same frames decoded by torchcodec, bit for bit those of PyAV, where it works and the clip is in order.

c channels, h w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import BinaryIO, Final

from torch import Tensor

from modalign.errors import DataError, MissingExtra, ModelError
from modalign.integrations.mates import torch_mate
from modalign.shown import printable
from modalign_video.config import VideoSettings
from modalign_video.containers import Guarded, Limits
from modalign_video.frames import resized
from modalign_video.timeline import Timeline

_log = logging.getLogger(__name__)
_FIX: Final = "install FFmpeg and {}, or set backend to pyav"


@cache
def broken() -> str | None:
    """Why torchcodec cannot be used here, in a line; None where it can."""
    try:
        import_module("torchcodec.decoders")
        # importing it is no proof: it looks for FFmpeg when it is first used
        import_module("torchcodec._core.ops").get_ffmpeg_library_versions()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def usable(line: Timeline, mirrored: bool, settings: VideoSettings) -> bool:
    """Whether torchcodec is to decode a clip; asked for by name, an error where it cannot.

    mirrored: whether the clip says that it was filmed so, which torchcodec does not undo.
    """
    if settings.backend == "pyav":
        return False
    reason = broken()
    if reason is None and not line.clean:
        reason = "the clip's frames have no times of their own, or not each another"
    elif reason is None and mirrored:
        reason = "the clip is mirrored"
    if reason is None:
        return True
    if settings.backend == "torchcodec":
        fix = _FIX.format(torch_mate("torchcodec", again=True))
        if broken() is not None:
            raise MissingExtra("torchcodec was asked for and does not work here", got=reason, fix=fix)
        raise ModelError("torchcodec was asked for and cannot decode this clip", got=reason, fix="set backend to pyav")
    if broken() is None:
        _log.info("a clip is decoded by PyAV: %s", reason)
    else:
        _say_once(reason)
    return False


def decode_with_torchcodec(
    file: BinaryIO, stream: int, line: Timeline, indices: Sequence[int], limits: Limits
) -> list[Tensor] | None:
    """The frames at places of a timeline, each ``c h w``; None where torchcodec fails or gives others, and PyAV may do.

    file: whose container is known to be one that opens nothing else.
    stream: of the container, by number.
    """
    try:
        found = _frames(file, stream, line, indices, limits)
    except DataError:
        raise
    except (RuntimeError, ValueError, LookupError) as error:
        limits.check_time()
        found, reason = None, str(error).strip().partition("\n")[0]
    else:
        reason = "it gives frames of other times"
    if found is None:
        if limits.settings.backend == "torchcodec":
            raise DataError(
                "torchcodec was asked for and cannot decode this clip",
                field=limits.field,
                got=printable(reason),
                fix="set backend to pyav",
            )
        _log.info("a clip is decoded by PyAV: torchcodec cannot (%s)", printable(reason))
    return found


def _frames(file: BinaryIO, stream: int, line: Timeline, indices: Sequence[int], limits: Limits) -> list[Tensor] | None:
    """The same; None where a frame is not what the timeline says."""
    decoder = import_module("torchcodec.decoders").VideoDecoder(
        Guarded(file, limits), stream_index=stream, device="cpu"
    )
    found: list[Tensor] = []
    for index in indices:
        limits.check_time()
        start = line.ticks[index]
        stop = line.ticks[index + 1] if index + 1 < len(line.ticks) else start + max(1, line.last)
        # asked in the middle of its time, as floats may round its start to the frame before
        frame = decoder.get_frame_played_at(float((start + stop) * line.base / 2))
        if abs(frame.pts_seconds - float(start * line.base)) > float(line.base) / 2:
            return None
        limits.check_pixels(frame.data.shape[2], frame.data.shape[1])
        found.append(resized(frame.data, limits.settings))
    return found


@cache
def _say_once(reason: str) -> None:
    _log.info("clips are decoded by PyAV: torchcodec does not work here (%s)", reason)
