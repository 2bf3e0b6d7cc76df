"""What a user may set about how clips are sampled and decoded."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Literal, final

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from modalign.roles import MediaSettings

Format = Literal["mp4", "matroska", "avi", "mpegts", "ogg", "gif"]
FORMATS: Final[tuple[Format, ...]] = ("mp4", "matroska", "avi", "mpegts", "ogg", "gif")
CODECS: Final = (
    *("h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "theora", "gif", "ffv1"),
)

MOST_BYTES: Final = 16 << 30  #: no settings allow more of an encoded clip
FRAMES: Final = 8  #: frames of a clip where nothing else is said

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@final
class VideoSettings(MediaSettings):
    """How clips are sampled and decoded, and the most that is decoded.

    One of `frames`, `fps` and `times` says which frames are taken: 8 frames where none does.

    >>> VideoSettings().frames, VideoSettings(fps=2.0).frames
    (8, None)
    """

    frames: PositiveInt | None = None
    """So many frames: those shown in the middle of as many equal spans. A clip that has fewer repeats some."""

    fps: float | None = Field(default=None, ge=0.001, le=1000, allow_inf_nan=False)
    """The frames shown at 0, 1/fps, 2/fps ... seconds."""

    times: tuple[Seconds, ...] | None = Field(default=None, min_length=1)
    """The frames shown at these times, in seconds from the clip's beginning, rising."""

    longest_edge: PositiveInt | None = None
    """Resize frames, as they are decoded, until their longer edge has so many pixels."""

    shortest_edge: PositiveInt | None = None
    """The same for the shorter edge; not both."""

    audio: bool = False
    """Decode the sound as well; a clip that has none gives none."""

    timestamps: Literal["sort", "error"] = "sort"
    """Frames whose times are missing, repeated, negative or out of order: order them by time, a frame without one
    following the frame decoded before it; or refuse the clip."""

    backend: Literal["auto", "pyav", "torchcodec"] = "auto"
    """What decodes: `auto` takes torchcodec where it works and can read the clip, else PyAV; both give the same bits.
    PyAV alone holds `max_pixels` and `max_frames` against every single frame: ask for it where clips are strangers'."""

    formats: tuple[Format, ...] = Field(default=FORMATS, min_length=1)
    """Containers that are read; `mp4` includes QuickTime's, `matroska` WebM."""

    codecs: tuple[str, ...] = Field(default=CODECS, min_length=1)
    """Codecs that are decoded, by FFmpeg's names."""

    max_bytes: PositiveInt = Field(default=1 << 30, le=MOST_BYTES)
    """Most bytes of an encoded clip."""

    max_seconds: PositiveFloat = Field(default=600.0, allow_inf_nan=False)
    """Longest stretch of a clip that is sampled, in seconds."""

    max_frames: PositiveInt = 20_000
    """Most frames that are decoded to find those that are kept."""

    max_pixels: PositiveInt = 3840 * 2160
    """Most pixels of a frame, height times width, before any resizing."""

    max_decoded_bytes: PositiveInt = 256 << 20
    """Most bytes of the frames that are kept: three for each pixel."""

    max_wall_seconds: PositiveFloat = Field(default=60.0, allow_inf_nan=False)
    """Longest time that reading and decoding one clip may take, in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _default_frames(cls, data: object) -> object:
        if isinstance(data, Mapping) and all(data.get(one) is None for one in ("frames", "fps", "times")):
            return {**data, "frames": FRAMES}
        return data

    @field_validator("times")
    @classmethod
    def _rising(cls, times: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if times is not None and any(later < earlier for earlier, later in pairwise(times)):
            msg = "times must rise"
            raise ValueError(msg)
        return times

    @model_validator(mode="after")
    def _one_of_each(self) -> VideoSettings:
        for names in (("frames", "fps", "times"), ("longest_edge", "shortest_edge")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                msg = f"give one of {', '.join(names)}, not {' and '.join(given)}"
                raise ValueError(msg)
        return self
