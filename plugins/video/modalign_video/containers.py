"""The containers that clips come in, told by their first bytes, and opened so that they can open nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, cast, final

from modalign.errors import DataError
from modalign.shown import printable, shown
from modalign_video.config import Format, VideoSettings

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

HEAD: Final = 1024  #: bytes that tell a container
_TS: Final = 188  #: bytes of a packet of a transport stream
_ATOMS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")

#: by our names: FFmpeg's demuxer, and the suffix of a file
DEMUXERS: Final[dict[Format, tuple[str, str]]] = {
    "mp4": ("mov", ".mp4"),
    "matroska": ("matroska", ".mkv"),
    "avi": ("avi", ".avi"),
    "mpegts": ("mpegts", ".ts"),
    "ogg": ("ogg", ".ogv"),
    "gif": ("gif", ".gif"),
}

#: how files begin that name other files or are no clips
_OTHERS: Final = (
    (b"#EXTM3U", "a playlist, which names other files"),
    (b"ffconcat", "a list of other files"),
    (b"<?xml", "XML, as of a playlist or a picture"),
    (b"v=0", "a session description, which names addresses"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"<", "a page, or XML"),
)
_FIX: Final = "convert it, for instance with: ffmpeg -i clip -c:v libx264 clip.mp4"


@final
class Limits:
    """What one decoding may take: the settings, and the moment at which its time is over.

    settings: of the user.
    field: that errors name.
    """

    def __init__(self, settings: VideoSettings, *, field: str = "video") -> None:
        self.settings, self.field = settings, field
        self._end = time.monotonic() + settings.max_wall_seconds

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    def check_time(self) -> None:
        """Raise where the time is over."""
        if self.over:
            raise DataError(
                "a clip that takes too long to decode",
                field=self.field,
                got=f"more than {self.settings.max_wall_seconds:g} seconds",
                fix="shorten it, or raise max_wall_seconds",
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Raise where a frame is of no size, or of too many pixels."""
        if width <= 0 or height <= 0:
            raise DataError("frames without a size", field=self.field, got=f"{width} by {height} pixels", fix=_FIX)
        if width * height > self.settings.max_pixels:
            raise DataError(
                "frames of too many pixels",
                field=self.field,
                got=f"{width} by {height}; at most {self.settings.max_pixels} are decoded",
                fix="scale the clip down, or raise max_pixels",
            )


@final
class Guarded:
    """A file object that ends when the time is over, and has no name for a library to use.

    file: open for reading.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._limits = file, limits

    # what is raised in here goes through C, and may be printed: `refusing` raises it later

    def read(self, size: int = -1) -> bytes:
        return b"" if self._limits.over else self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError, OSError):  # to where a forged header points
            return -1

    def tell(self) -> int:
        return self._file.tell()


def sniff(head: bytes, *, field: str = "video") -> Format:
    """Which container begins like this; a `DataError` where it is none we read.

    head: the first `HEAD` bytes, or fewer where there are no more.
    """
    if head[4:8] in _ATOMS:
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if len(head) > 2 * _TS and all(head[at] == 0x47 for at in range(0, len(head), _TS)):
        return "mpegts"
    if not head:
        raise DataError("an empty file", field=field, got="0 bytes", fix="remove the row, or mend the file")
    found = next((what for start, what in _OTHERS if head.lstrip().startswith(start)), None)
    raise DataError(
        f"no container of clips that is read: {', '.join(DEMUXERS)}",
        field=field,
        got=found or f"a file that begins with {head[:12]!r}",
        fix=_FIX,
    )


def head_of(file: BinaryIO) -> bytes:
    """The bytes that `sniff` wants; the file is at its beginning again."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def length_of(file: BinaryIO) -> int:
    """How many bytes a file has; it is at its beginning again."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def check_length(length: int, most: int, *, field: str = "video") -> None:
    """Raise where an encoded clip is larger than allowed."""
    if length > most:
        raise DataError(
            "an encoded clip that is too large",
            field=field,
            got=f"{length} bytes; at most {most} are read",
            fix="shorten it, or raise max_bytes",
        )


@contextmanager
def opened(file: BinaryIO, limits: Limits) -> Iterator[VideoStream]:
    """The first stream of video in a file, its container open and its header held against the settings.

    The demuxer is ours to choose, by the first bytes; it may open no other file and no address, whatever it reads.
    """
    import av
    from av.container.core import Flags

    settings = limits.settings
    form = sniff(head_of(file), field=limits.field)
    if form not in settings.formats:
        raise DataError(
            "a container that the settings do not allow", field=limits.field, got=form, fix="add it to formats"
        )
    # no protocol, and no reference of QuickTime's to other files; the codec refuses frames that grow on the way
    options = {"protocol_whitelist": "", "max_pixels": str(settings.max_pixels)}
    if form == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    with refusing(limits):
        container = av.open(
            Guarded(file, limits),
            "r",
            format=DEMUXERS[form][0],
            options=options,
            metadata_errors="replace",
            io_open=_refuse,
        )
        with container:
            # what was stored, not what FFmpeg would guess where nothing was
            container.flags &= ~Flags.gen_pts.value
            yield _stream(container, limits)


@contextmanager
def refusing(limits: Limits) -> Iterator[None]:
    """Turn what a library raises on a broken file, and the end of the time, into a `DataError`."""
    try:
        yield
    except DataError:
        limits.check_time()  # without time a file ends too early, whatever that was taken for
        raise
    except (ValueError, ArithmeticError, LookupError, EOFError, OSError, RuntimeError, MemoryError) as error:
        # FFmpeg's errors each inherit one of these
        limits.check_time()
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            "a clip that cannot be decoded",
            field=limits.field,
            got=printable(str(said).partition("\n")[0])[:160],
            fix="mend or replace it: ffmpeg -v error -i clip -f null - lists what is broken",
        ) from error
    else:
        limits.check_time()


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise DataError("a clip that names another file or address", field="video", got=shown(url), fix=_FIX)


def _stream(container: InputContainer, limits: Limits) -> VideoStream:
    found = [one for one in container.streams.video if not one.disposition & type(one.disposition).attached_pic]
    if not found:
        kinds = ", ".join(sorted({one.type for one in container.streams})) or "nothing"
        raise DataError(
            "a clip without video", field=limits.field, got=f"streams of {kinds}", fix="give a file that holds video"
        )
    stream = found[0]
    if stream.codec_context is None or stream.codec_context.name not in limits.settings.codecs:
        name = "unknown" if stream.codec_context is None else stream.codec_context.name
        raise DataError(
            "a codec that the settings do not allow",
            field=limits.field,
            got=name,
            fix="convert it, or add it to codecs",
        )
    limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = type(other.discard).all
    stream.thread_count = 1  # frame threads would hold a frame each, and finish in no fixed order
    stream.codec_context.options = {"max_pixels": str(limits.settings.max_pixels)}
    return stream


def container_of(stream: VideoStream | AudioStream) -> InputContainer:
    """The open container that a stream belongs to."""
    return cast("InputContainer", stream.container)
