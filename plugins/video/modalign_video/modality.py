"""Clips as a modality: tensors in memory for now, saved and shown as MP4 (H.264).

t frames, c channels, h w pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from einops import rearrange, repeat
from torch import Tensor

from modalign.content import Part
from modalign.data.fields import block_value
from modalign.errors import DataError
from modalign.roles import Modality
from modalign_video.world import RATE

_SHOWN = 160  #: pixels a small clip is shown at
_QUALITY = "12"  #: of H.264's constant rate factor: 0 keeps everything, 51 the least


@final
class VideoModality(Modality):
    """Clips, ``t 3 h w`` of floats from 0 to 1 at the oracle world's 8 frames per second.

    Only clips in memory can be read yet; files and encoded bytes are refused in words.
    """

    name: ClassVar[str] = "video"
    blocks: ClassVar[tuple[str, ...]] = ("video",)
    columns: ClassVar[tuple[str, ...]] = ("video", "videos")

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        part = _part(block_value(block, "video", "a clip"))
        _pixels(part)
        return part

    def block(self, part: Part) -> Mapping[str, object]:
        _pixels(part)
        return {"type": "video", "video": part.value}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.mp4")
        file.write_bytes(_mp4(_pixels(part)))
        return file

    def show(self, part: Part) -> str:
        frames = _pixels(part)
        times = max(1, _SHOWN // frames.shape[2])  # enlarged before it is encoded, as browsers blur what they enlarge
        large = repeat(frames, "t h w c -> t (h down) (w right) c", down=times, right=times)
        data = base64.b64encode(_mp4(large)).decode()
        return f'<video controls loop muted width="{_SHOWN}" src="data:video/mp4;base64,{data}"></video>'


def _part(value: object) -> Part:
    if not isinstance(value, Tensor):
        raise DataError(
            "this version reads clips in memory only, not files or encoded bytes",
            field="video",
            got=type(value).__name__,
            fix="give a float tensor of shape (frames, 3, height, width) with values from 0 to 1",
        )
    return Part(modality="video", value=value)


def _pixels(part: Part) -> Tensor:
    """The clip as ``t h w c`` of uint8."""
    value = _part(part.value).value
    assert isinstance(value, Tensor)
    if value.ndim != 4 or value.shape[1] != 3 or not value.is_floating_point() or not value.numel():
        raise DataError(
            'a clip must be "t 3 h w" of floats', field="video", got=f"{value.dtype} of shape {tuple(value.shape)}"
        )
    if value.shape[2] % 2 or value.shape[3] % 2:
        raise DataError(
            "a clip's height and width must be even, for its codec halves them",
            field="video",
            got=f"{value.shape[2]} by {value.shape[3]} pixels",
            fix="crop or pad it by one",
        )
    if not value.isfinite().all():
        raise DataError("a clip must hold finite numbers", field="video", got="NaN or infinity")
    return rearrange((value.detach().cpu().clamp(0, 1) * 255).round().byte(), "t c h w -> t h w c")


def _mp4(frames: Tensor) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": _QUALITY})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.contiguous().numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
