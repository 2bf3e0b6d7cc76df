"""Frames to MP4, for files and for pages.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange, repeat
from torch import Tensor

from modalign_video.sampling import exact_rate

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_PIXELS = "yuv420p"
_FINE = MappingProxyType({"crf": "12"})  #: H.264's constant rate factor: 0 keeps everything, 51 the least


def mp4(frames: Tensor, rate: float, *, codec: str = "libx264", options: Mapping[str, str] = _FINE) -> bytes:
    """Encoded frames; where their height or width is odd the last row or column is repeated, as codecs need pairs.

    Equal frames give equal bytes: everything runs on one thread, since on more x264 decides by what is ready first; and
    it is told to add up alike on every processor, since else what it adds up depends on where memory lies as well.

    frames: ``t 3 h w`` of uint8.
    rate: frames per second.
    codec, options: as FFmpeg names them.
    """
    import av

    even = even_sized(frames)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        said = {**options, "threads": "1"}
        if codec == "libx264":
            own = options.get("x264-params")
            said["x264-params"] = "cpu-independent=1" + (f":{own}" if own else "")
        stream = cast("VideoStream", container.add_stream(codec, exact_rate(rate), options=said))
        stream.height, stream.width, stream.pix_fmt = even.shape[2], even.shape[3], _PIXELS
        for frame in rearrange(even, "t c h w -> t h w c"):
            painted = av.VideoFrame.from_ndarray(frame.contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(painted.reformat(format=_PIXELS, threads=1)))
        container.mux(stream.encode(None))
    return file.getvalue()


def even_sized(frames: Tensor) -> Tensor:
    """Frames of even height and width: an odd last row or column is repeated.

    >>> even_sized(torch.zeros(1, 3, 5, 4)).shape
    torch.Size([1, 3, 6, 4])
    """
    if frames.shape[2] % 2:
        frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
    if frames.shape[3] % 2:
        frames = torch.cat([frames, frames[:, :, :, -1:]], dim=3)
    return frames


def enlarged(frames: Tensor, width: int) -> Tensor:
    """Small frames with every pixel repeated, up to a width: browsers blur what they enlarge themselves."""
    times = max(1, width // frames.shape[3])
    return repeat(frames, "t c h w -> t c (h down) (w right)", down=times, right=times)
