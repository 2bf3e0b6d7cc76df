"""Clips that would fill memory, and files changed at random: both in a process of their own."""

from __future__ import annotations

import io
import subprocess
import sys

import av

from modalign_video.testing import numbered_clip

BOMBS = """
import resource, struct, sys
from modalign.content import Part
from modalign.errors import DataError
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality

def decode(value, **settings):
    part = Part(modality="video", value=value)
    return VideoModality().decode(part, VideoSettings(backend="pyav", max_decoded_bytes=64 << 20, **settings))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

bomb, small = (open(name, "rb").read() for name in sys.argv[1:])
decode(small, longest_edge=32)  # what the libraries themselves take
at = bomb.index(b"stsz") + 4
claims = bytearray(small)
struct.pack_into(">II", claims, small.index(b"stsz") + 8, 1, 10**9)
struct.pack_into(">I", claims, small.index(b"stts") + 12, 10**9)
before, refused = peak(), 0
for value, settings in (
    (bomb, {"frames": 16}),  # 16 frames of 3840 by 2160: 398 MB
    (bomb, {"fps": 1000.0}),
    (bomb, {"frames": 4, "longest_edge": 64, "max_frames": 30}),
    (bytes(claims), {}),
    (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b"," + bytes(9000), {}),
):
    try:
        decode(value, **settings)
    except DataError as error:
        assert error.field == "video", error
        refused += 1
print(refused, peak() - before)
"""


def bomb():
    """A small file of 2,000 frames of 3840 by 2160 pixels: one frame, and then nothing that changes."""
    once = io.BytesIO()
    with av.open(once, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=50, options={"g": "600"})
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
        frame = av.VideoFrame(3840, 2160, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(2):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    first, still = packets(once.getvalue())
    again = io.BytesIO()
    with av.open(io.BytesIO(once.getvalue()), "r") as source, av.open(again, "w", format="mp4") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number in range(2000):
            packet = av.Packet(bytes(still if number else first))
            packet.stream, packet.time_base, packet.is_keyframe = stream, first.time_base, not number
            packet.pts = packet.dts = number * (first.duration or 1)
            out.mux(packet)
    return again.getvalue()


def test_bombs_are_refused_within_the_memory_that_is_allowed(tmp_path):
    (tmp_path / "bomb.mp4").write_bytes(bomb())
    (tmp_path / "small.mp4").write_bytes(numbered_clip(30))
    assert (tmp_path / "bomb.mp4").stat().st_size < 32 << 20  # of 2000 * 3840 * 2160 * 3 = 50e9 bytes
    found = subprocess.run(
        [sys.executable, "-c", BOMBS, "bomb.mp4", "small.mp4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    refused, rise = map(int, found.stdout.split())
    assert refused == 5
    assert rise <= (64 << 20) + (64 << 20)  # max_decoded_bytes, and 64 MiB
    assert found.stderr == ""


MUTANTS = """
import collections, random, sys
from pathlib import Path
from modalign.content import Part
from modalign.errors import DataError
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality

found = collections.Counter()
settings = VideoSettings(max_wall_seconds=5, max_frames=500, max_pixels=1 << 20, audio=True)
for file in sorted(Path(sys.argv[1]).iterdir()):
    base = file.read_bytes()
    for seed in range(30):
        random.seed(f"{file.name}/{seed}")
        edited = bytearray(base)
        kind = seed % 3
        if kind == 0:
            for _ in range(random.randint(1, 20)):
                edited[random.randrange(len(edited))] = random.randrange(256)
        elif kind == 1:
            at = random.randrange(len(edited))
            edited[at : at + random.randint(1, 64)] = random.randbytes(random.randint(0, 64))
        else:
            del edited[random.randrange(len(edited)) :]
        print(file.name, seed, file=sys.stderr)
        try:
            modality = VideoModality()
            part = modality.read({"type": "video", "video": bytes(edited)}, root=None)
            content = modality.decode(part, settings)
            assert content.tensor.shape[0] == 8 == len(content.times), content
            found["decoded"] += 1
        except DataError as error:
            assert error.field == "video", error
            found["refused"] += 1
print(found["decoded"], found["refused"])
"""


def test_files_changed_at_random_are_decoded_or_refused_and_nothing_else(tmp_path):
    folder = tmp_path / "bases"
    folder.mkdir()
    for name, made in {
        "a.mp4": {"sound": [0.1] * 8000},
        "b.mkv": {"container": "matroska", "codec": "libvpx-vp9"},
        "c.avi": {"container": "avi"},
        "d.ts": {"container": "mpegts"},
        "e.gif": {"container": "gif", "codec": "gif"},
    }.items():
        (folder / name).write_bytes(numbered_clip(12, **made))
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", MUTANTS, str(folder)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    decoded, refused = map(int, found.stdout.split())
    assert decoded + refused == 150
    assert min(decoded, refused) > 20  # the mutations reach what is behind the header, and do harm


def packets(clip):
    with av.open(io.BytesIO(clip), "r") as container:
        return [packet for packet in container.demux(video=0) if packet.size]
