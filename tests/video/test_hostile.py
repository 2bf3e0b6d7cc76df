"""Clips that are broken or made to harm: each a `DataError` that names its field, within stated memory."""

from __future__ import annotations

import io
import socket
import struct
import threading
from pathlib import Path

import av
import av.error
import pytest

from modalign.content import Part
from modalign.errors import DataError
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality
from modalign_video.samples import atom, damaged, hours, index_first, sound_only
from modalign_video.testing import numbered_clip, numbers_in

MODALITY = VideoModality()
CLIP = numbered_clip(30)
MKV = {"container": "matroska", "codec": "mpeg4", "options": {"g": "1"}}


MANY = 10**9

ROWS = {
    "nothing": (b"", {}),
    "zeros": (bytes(4096), {}),
    "words": (b"no clip at all, only words " * 99, {}),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), {}),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", {}),
    "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd\n", {}),
    "a session": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", {}),
    "a manifest": (b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>", {}),
    "the first box only": (CLIP[:32], {}),
    "cut before its index": (CLIP[: len(CLIP) // 2], {}),
    "cut behind its index": (index_first(CLIP)[:-600], {}),
    "a header of Matroska only": (b"\x1a\x45\xdf\xa3" + bytes(200), {}),
    "a header of AVI only": (b"RIFF\x00\x01\x00\x00AVI LIST" + bytes(200), {}),
    "a header of Ogg only": (b"OggS" + bytes(200), {}),
    "sync bytes only": ((b"\x47" + b"\xff" * 187) * 40, {}),
    "a header of GIF only": (b"GIF89a\x10\x00\x10\x00\x00\x00\x00", {}),
    "a screen of 65535 by 65535": (b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + b"," + bytes(400), {}),
    "sound only": (sound_only(), {}),
    "no frames": (atom(CLIP, b"stsz", 8, ">I", 0), {}),
    "a billion frames": (atom(atom(CLIP, b"stsz", 4, ">II", 1, MANY), b"stts", 8, ">I", MANY), {}),
    "noise for frames": (damaged(CLIP), {}),
    "ten hours between two frames": (numbered_clip(2, ticks=[0, 36_000_000], **MKV), {}),
    "a header that says hours": (hours(numbered_clip(3, **MKV)), {}),
    "turned by 45 degrees": (numbered_clip(3, turned=45), {}),
    "more bytes than allowed": (CLIP, {"max_bytes": 1000}),
    "more seconds than allowed": (CLIP, {"max_seconds": 2.0}),
    "more pixels than allowed": (CLIP, {"max_pixels": 1000}),
    "more frames than allowed": (CLIP, {"max_frames": 5, "backend": "pyav"}),
    "more kept than allowed": (CLIP, {"max_decoded_bytes": 5000}),
    "a rate that keeps too much": (CLIP, {"max_decoded_bytes": 100_000, "fps": 1000.0}),
    "more time than allowed": (CLIP, {"max_wall_seconds": 1e-9}),
    "a container that is not allowed": (CLIP, {"formats": ("matroska",)}),
    "a codec that is not allowed": (CLIP, {"codecs": ("vp9",)}),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_broken_or_hostile_clip_is_an_error_that_names_its_field(name, capfd):
    clip, settings = ROWS[name]
    with pytest.raises(DataError) as caught:
        MODALITY.decode(
            MODALITY.read({"type": "video", "video": clip}, root=None), VideoSettings.model_validate(settings)
        )
    assert caught.value.field == "video"
    assert caught.value.got
    assert caught.value.fix
    assert capfd.readouterr() == ("", "")  # FFmpeg keeps quiet


def test_the_clip_that_the_rows_are_made_of_is_whole():
    for clip in (CLIP, index_first(CLIP)):
        content = MODALITY.decode(Part(modality="video", value=clip), VideoSettings(frames=30))
        assert numbers_in(content.tensor) == list(range(30))


def test_frames_that_change_their_size_are_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 16, "yuvj420p"
        first = packets(numbered_clip(4, container="avi", codec="mjpeg"))
        second = packets(numbered_clip(4, container="avi", codec="mjpeg", times=2))
        for number, packet in enumerate([*first[:2], *second[2:]]):
            packet.stream, packet.pts, packet.dts = stream, number, number
            out.mux(packet)
    part = Part(modality="video", value=file.getvalue())
    with pytest.raises(DataError, match="change their size"):
        MODALITY.decode(part, VideoSettings(frames=4, backend="pyav"))
    with pytest.raises(DataError):  # and the codec refuses what outgrows the limit on the way
        MODALITY.decode(part, VideoSettings(frames=4, backend="pyav", max_pixels=16 * 64))


def packets(clip):
    with av.open(io.BytesIO(clip), "r") as container:
        return [packet for packet in container.demux(video=0) if packet.size]


# --- no other file, no address ----------------------------------------------------------------------


@pytest.fixture
def listener():
    """An address on this machine, and the connections that were made to it."""
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                hits.append(1)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", hits
        server.shutdown(socket.SHUT_RDWR)


def playlists(address):
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{address}/a.mp4'\n",
        "dash": f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{address}/</BaseURL></Period></MPD>',
    }


def test_nothing_that_a_clip_names_is_ever_asked_for(listener, tmp_path):
    address, hits = listener
    for name, text in playlists(address).items():
        for ending in ("mp4", "m3u8", "ffconcat"):
            (tmp_path / f"{name}.{ending}").write_text(text)
            for value in (text.encode(), f"{name}.{ending}"):
                with pytest.raises(DataError) as caught:
                    MODALITY.read({"type": "video", "video": value}, root=tmp_path)
                assert caught.value.field == "video"
                with pytest.raises(DataError):  # a part that was not read from a row
                    MODALITY.decode(Part(modality="video", value=text.encode()), VideoSettings())
    for name in (f"{address}/a.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4"):
        with pytest.raises(DataError):
            MODALITY.read({"type": "video", "video": name}, root=tmp_path)
    assert hits == []


def test_the_listener_hears_a_library_that_is_let_alone(listener):
    address, hits = listener
    for name in ("hls", "concat"):
        hits.clear()
        options = {"safe": "0", "allowed_extensions": "ALL", "extension_picky": "0"}
        with pytest.raises(av.error.FFmpegError):
            av.open(io.BytesIO(playlists(address)[name].encode()), "r", format=name, options=options, timeout=5)
        assert hits


def alias(clip, path):
    """A clip of which QuickTime would say that its frames lie in another file (an `alis` record of type 2, a path)."""
    name = b"\x00\x02" + struct.pack(">H", len(path)) + path + b"\x00" * (len(path) % 2)
    record = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([0]) + bytes(63) + bytes(16) + bytes(20)
    entry_body = struct.pack(">I", 0) + record + name + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I", 8 + len(entry_body)) + b"alis" + entry_body
    place = clip.index(b"url ") - 4
    longer = len(entry) - 12
    edited = bytearray(clip[:place] + entry + clip[place + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = edited.index(box) - 4
        struct.pack_into(">I", edited, at, struct.unpack_from(">I", edited, at)[0] + longer)
    return bytes(edited)


def test_a_clip_that_points_into_another_file_does_not_open_it(tmp_path, monkeypatch):
    (tmp_path / "secret.mp4").write_bytes(CLIP)
    asked = []

    def opening(url, flags, options):
        asked.append(url)
        raise PermissionError

    clip = alias(CLIP, str(tmp_path / "secret.mp4").encode())
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with pytest.raises(PermissionError):
        av.open(io.BytesIO(clip), "r", options=options, io_open=opening)
    assert asked == [str(tmp_path / "secret.mp4")]  # what a library does that is told to
    monkeypatch.setattr("modalign_video.containers._refuse", opening)
    with pytest.raises(DataError, match="a clip without frames"):
        MODALITY.decode(Part(modality="video", value=clip), VideoSettings())
    assert len(asked) == 1


def test_a_part_without_a_file_says_so(tmp_path):
    from modalign.files import File

    with pytest.raises(DataError, match="no such file"):
        MODALITY.decode(Part(modality="video", value=File(root=Path(tmp_path), name="gone.mp4")), VideoSettings())
