"""Public test doubles: clips whose containers are broken or lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from modalign_video.testing import numbered_clip

if TYPE_CHECKING:
    from av.audio.stream import AudioStream


def atom(clip: bytes, name: bytes, offset: int, code: str, *values: int) -> bytes:
    """A clip with numbers changed at an offset behind the name of one of its boxes (ISO/IEC 14496-12)."""
    edited = bytearray(clip)
    struct.pack_into(code, edited, clip.index(name) + 4 + offset, *values)
    return bytes(edited)


def sound_only() -> bytes:
    """A container with sound and no frames."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        track = cast("AudioStream", out.add_stream("aac", rate=8000, layout="mono"))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return file.getvalue()


def damaged(clip: bytes) -> bytes:
    """A clip whose frames are noise, though its boxes are right."""
    start = clip.index(b"mdat") + 4
    stop = clip.index(b"moov") - 4
    return clip[:start] + bytes(number * 73 % 251 for number in range(stop - start)) + clip[stop:]


def index_first(clip: bytes) -> bytes:
    """The same clip with its index before its frames."""
    place, index = clip.index(b"free") - 4, clip[clip.index(b"moov") - 4 :]
    moved = bytearray(index)
    at = moved.index(b"stco") + 8
    count = struct.unpack_from(">I", moved, at)[0]
    for number in range(1, count + 1):
        chunk = struct.unpack_from(">I", moved, at + 4 * number)[0]
        struct.pack_into(">I", moved, at + 4 * number, chunk + len(index))
    return clip[:place] + bytes(moved) + clip[place : len(clip) - len(index)]


def hours(clip: bytes) -> bytes:
    """A clip of Matroska whose header says that it takes 10 hours (element 4489, in milliseconds)."""
    edited = bytearray(clip)
    struct.pack_into(">d", edited, clip.index(b"\x44\x89\x88") + 3, 36e6)
    return bytes(edited)


def broken(address: str = "127.0.0.1:9") -> dict[str, tuple[bytes, str]]:
    """Files that are no clips, by what is wrong with each, and words of the error that says so.

    address: of what some of them name.
    """
    clip = numbered_clip(12)

    def slow(count: int, ticks: Sequence[int] | None = None) -> bytes:
        return numbered_clip(count, container="matroska", codec="mpeg4", options={"g": "1"}, ticks=ticks)

    def half(data: bytes) -> bytes:
        return data[: len(data) // 2]

    return {
        "no bytes": (b"", "an empty file"),
        "words": (b"no clip at all, only words " * 99, "no container of clips"),
        "a playlist": (f"#EXTM3U\n#EXTINF:1,\nhttp://{address}/a.ts\n".encode(), "a playlist"),
        "a list of files": (f"ffconcat version 1.0\nfile 'http://{address}/a.mp4'\n".encode(), "a list of other files"),
        "a manifest": (f"<?xml version='1.0'?><MPD><BaseURL>http://{address}/</BaseURL></MPD>".encode(), "XML"),
        "no video stream": (sound_only(), "a clip without video"),
        "no frames": (atom(clip, b"stsz", 8, ">I", 0), "a clip without frames"),
        "a billion frames": (
            atom(atom(clip, b"stsz", 4, ">II", 1, 10**9), b"stts", 8, ">I", 10**9),
            "more frames than any settings allow",
        ),
        "cut before its index": (half(clip), "cannot be decoded"),
        "cut behind its index": (index_first(clip)[:-600], "cut off"),
        "noise for frames": (damaged(clip), "cannot be decoded"),
        "ten hours": (slow(2, [0, 36_000_000]), "too long"),
        "a header that says hours": (hours(slow(3)), "too long"),
        "a screen of 65535 by 65535": (b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + bytes(400), "without a size"),
    }
