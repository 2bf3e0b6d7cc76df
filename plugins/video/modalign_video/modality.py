"""Clips as a modality: read from memory, bytes and files; decoded; saved, and shown as MP4 (H.264)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast, final

from torch import Tensor

from modalign.content import Part
from modalign.roles import Content, MediaSettings, Modality
from modalign_video.config import VideoSettings
from modalign_video.containers import DEMUXERS, head_of, sniff
from modalign_video.decoding import decode, encoded
from modalign_video.memory import as_bytes, check_clip
from modalign_video.reading import read_part, write_block
from modalign_video.world import RATE
from modalign_video.writing import enlarged, mp4

_SHOWN = 160  #: pixels a small clip is shown at
_LARGEST = 320  #: pixels of the longer edge of a clip that is shown
_FRAMES = 32  #: frames of an encoded clip that is shown


@final
class VideoModality(Modality):
    """Clips: frames in memory, encoded bytes, files. The blocks are those of `modalign_video.reading`.

    >>> import torch
    >>> part = VideoModality().read({"type": "video", "video": torch.zeros(4, 3, 6, 8), "fps": 2.0}, root=None)
    >>> content = VideoModality().decode(part, VideoSettings(frames=2))
    >>> content.tensor.shape, content.times, content.seconds
    (torch.Size([2, 3, 6, 8]), (0.5, 1.5), 2.0)
    """

    name: ClassVar[str] = "video"
    blocks: ClassVar[tuple[str, ...]] = ("video",)
    columns: ClassVar[tuple[str, ...]] = ("video", "videos")
    settings: ClassVar[type[MediaSettings]] = VideoSettings
    timed: ClassVar[bool] = True

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        return read_part(block, root)

    def block(self, part: Part) -> Mapping[str, object]:
        return write_block(part)

    def save(self, part: Part, stem: Path) -> Path:
        """Frames in memory become MP4 (H.264); what is encoded stays as it is, byte for byte."""
        if isinstance(part.value, Tensor):
            file = stem.with_name(f"{stem.name}.mp4")
            file.write_bytes(mp4(as_bytes(check_clip(part.value)), cast(float, part.facts.get("fps", RATE))))
            return file
        with encoded(part, VideoSettings()) as source:
            file = stem.with_name(f"{stem.name}{DEMUXERS[sniff(head_of(source))][1]}")
            with file.open("wb") as target:
                while block := source.read(1 << 20):
                    target.write(block)
        return file

    def show(self, part: Part) -> str:
        """Frames in memory as they are, small ones enlarged; of an encoded clip at most 32 frames, in its own time."""
        if isinstance(part.value, Tensor):
            frames, rate = as_bytes(check_clip(part.value)), cast(float, part.facts.get("fps", RATE))
        else:
            content = decode(part, VideoSettings(frames=_FRAMES, longest_edge=_LARGEST))
            frames, rate = content.tensor, content.rate or RATE
        large = enlarged(frames, _SHOWN)
        data = base64.b64encode(mp4(large, rate)).decode()
        plays = "autoplay controls loop muted playsinline"  # controls of a clip that stands still would hide half of it
        return f'<video {plays} width="{large.shape[3]}" src="data:video/mp4;base64,{data}"></video>'

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        return decode(part, settings, rate=rate)
