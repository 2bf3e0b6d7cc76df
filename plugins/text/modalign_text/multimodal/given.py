"""What a processor is given for a medium, and what it is told of its times.

t frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from modalign.errors import DataError
from modalign.roles import Content, MediaSettings

#: frames per second of the grid that times are said in: processors count frames, some in whole milliseconds
TICKS: Final = 1000
_PER_GRID: Final = "second_per_grid"  #: in the name of the one number a family has for the times of a whole clip


def given_of(content: Content) -> tuple[object, dict[str, object]]:
    """What a processor is given for a medium, and the settings beside it."""
    match content.modality:
        case "audio":
            if content.tensor.shape[0] != 1:
                raise DataError(
                    "this model hears one channel",
                    field="audio",
                    got=f"{content.tensor.shape[0]} channels",
                    fix="set model.media.audio.channels to mono",
                )
            assert content.rate is not None
            return content.tensor[0].numpy(), {"audio_kwargs": {"sampling_rate": int(content.rate)}}
        case "video":
            # frames were chosen by us: the processor must not choose among them again
            settings: dict[str, object] = {"do_sample_frames": False, "video_metadata": [_metadata(content)]}
            if content.rate is not None:
                settings["fps"] = content.rate  # the Omni families read it here, and nowhere else
            return content.tensor, {"videos_kwargs": settings}
        case _:
            return content.tensor, {}


def paced(content: Content, settings: MediaSettings) -> Content:
    """A clip with the rate of its times where they are even; any other medium as it is.

    Even is what was asked for: the frames shown then may start a little earlier.

    settings: by which it was decoded.
    """
    if content.modality != "video" or content.rate is not None:
        return content
    asked: Sequence[float] = getattr(settings, "times", None) or content.times
    if len(asked) < 2:
        return replace(content, rate=1.0)  # of one frame, which is at its time whatever the rate
    step = (asked[-1] - asked[0]) / (len(asked) - 1)
    even = step > 0 and all(abs(later - earlier - step) <= 1e-3 * step for earlier, later in pairwise(asked))
    return replace(content, rate=1 / step) if even else content


def check_pace(content: Content, found: Mapping[str, object]) -> None:
    """Raise where a processor that has one rate for a clip was given one that has none.

    found: what the processor made of it.
    """
    if content.modality == "video" and content.rate is None and any(_PER_GRID in name for name in found):
        said = ", ".join(f"{time:g}" for time in content.times[:8])
        raise DataError(
            "this model takes a clip's frames at even distances only",
            field="video",
            got=f"frames at {said or 'unknown times'} (seconds)",
            fix="write even times in model.media.video.times, or use `frames` or `fps` instead",
        )


def _metadata(content: Content) -> dict[str, object]:
    """What is said of a clip's times: where on a fine grid its frames are, and how long they are together."""
    frames = len(content.tensor)
    rate = content.rate
    times = content.times or (() if rate is None else tuple(number / rate for number in range(frames)))
    places = [round(time * TICKS) for time in times]
    return {
        "total_num_frames": frames * TICKS / rate if rate is not None else max(places, default=0) + 1,
        "fps": TICKS if places else None,
        "frames_indices": places or list(range(frames)),
        "duration": content.seconds,
    }
