"""Encoded sounds, in files or in memory, opened with libsndfile: what is checked before anything is decoded."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast, final

from modalign.content import Part
from modalign.errors import DataError, MissingExtra, ModelError
from modalign.files import File
from modalign.shown import printable, shown
from modalign_audio.config import AudioSettings, Format
from modalign_audio.sound import FIELD, check_channels, checked_rate

if TYPE_CHECKING:
    from types import ModuleType

    from soundfile import SoundFile

#: How each kind of file begins: libsndfile knows thirty kinds, and is shown only those that are allowed.
_BEGINS: tuple[tuple[str, tuple[Format, ...]], ...] = (
    (r"(RIFF|RIFX)....WAVE", ("WAV", "WAVEX")),
    (r"fLaC", ("FLAC",)),
    (r"OggS", ("OGG",)),
    (r"FORM....AIF[FC]", ("AIFF",)),
    (r"ID3", ("MP3", "FLAC")),
    (r"\xff[\xe2-\xff]", ("MP3",)),
)
_PAGE = 27 + 255 + 255 * 255  #: bytes of the longest page of an Ogg file
_STREAMED = 0xFFFFFFFF  #: the size that programs write that cannot go back to the header
_SIZES = re.compile(r"^\s*(RIFF|RIFX|FORM|data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


@contextmanager
def opened(part: Part, settings: AudioSettings, *, whole: bool = False) -> Iterator[SoundFile]:
    """The part's sound, its size and header checked; what goes wrong within is a `DataError`.

    whole: whether all of it is wanted, so that its SHA-256 is checked too.
    """
    library = _library()
    with _stream(part, settings) as stream:
        try:
            if whole and "sha256" in part.facts:
                _check_hash(stream, str(part.facts["sha256"]))
            _check_begin(stream, settings)
            with library.SoundFile(_handle(stream), closefd=False) as file:
                _check_file(file, settings, part.facts)
                yield file
        except DataError as error:
            raise _named(error, part) from error
        except library.LibsndfileError as error:
            # its own words only: str(error) quotes the stream, with an address in memory
            raise _undecodable(part, error.error_string) from error
        except (library.SoundFileError, OSError, ValueError, RuntimeError, OverflowError) as error:
            raise _undecodable(part, type(error).__name__) from error


def encoded(part: Part, settings: AudioSettings) -> bytes:
    """The bytes of an encoded part, once their number is found right."""
    with _stream(part, settings) as stream:
        return stream.read(settings.max_bytes + 1)


@contextmanager
def _stream(part: Part, settings: AudioSettings) -> Iterator[BinaryIO]:
    """The part's bytes as an open file, once their number is found right."""
    value = part.value
    try:
        stream = value.open() if isinstance(value, File) else _Bytes(cast(bytes, value))
    except DataError as error:
        raise DataError(error.what, field=FIELD, got=error.got, fix=error.fix) from error
    with stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if not size:
            raise _named(DataError("an empty file is no sound", field=FIELD, got="0 bytes"), part)
        if size > settings.max_bytes:
            error = DataError(
                "a file is larger than the settings allow",
                field=FIELD,
                got=f"{size} bytes; allowed are {settings.max_bytes}",
                fix="cut it, encode it as FLAC or Opus, or raise media.audio.max_bytes",
            )
            raise _named(error, part)
        yield stream


@final
class _Bytes(io.BytesIO):
    """Bytes as a file that stays where it is when it is sent to a place that a forged header names."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):  # raised within a callback of C it would be printed, and lost
            return self.tell()


def _handle(stream: BinaryIO) -> int | BinaryIO:
    """What libsndfile reads: the descriptor of a file, which it seeks by itself, or the bytes in memory."""
    stream.seek(0)
    if isinstance(stream, _Bytes):
        return stream
    os.lseek(stream.fileno(), 0, os.SEEK_SET)  # the buffer above it has read ahead
    return stream.fileno()


def _check_hash(stream: BinaryIO, wanted: str) -> None:
    stream.seek(0)
    found = hashlib.sha256()
    while block := stream.read(1 << 20):
        found.update(block)
    if found.hexdigest() != wanted:
        raise DataError(
            "a file is not the one that the row means",
            field="sha256",
            got=f"SHA-256 {found.hexdigest()}",
            fix="get the file again, or correct the row",
        )


def _check_begin(stream: BinaryIO, settings: AudioSettings) -> None:
    stream.seek(0)
    begin = stream.read(12).decode("latin-1")
    kinds = next((kinds for pattern, kinds in _BEGINS if re.match(pattern, begin, re.DOTALL)), ())
    if not set(kinds) & set(settings.formats):
        raise _unknown("/".join(kinds) or f"a file that begins with {shown(begin[:8])}", settings)
    if kinds == ("OGG",):
        _check_last_page(stream)


def _check_last_page(stream: BinaryIO) -> None:
    """Refuse an Ogg file whose last page is cut off or not its last: libsndfile takes it for a shorter sound."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _PAGE))
    page = stream.read(_PAGE)
    page = page[max(0, page.rfind(b"OggS")) :]
    segments = page[26] if len(page) > 26 else 0
    if len(page) < 27 + segments + sum(page[27 : 27 + segments]):
        raise _truncated("its last page is not whole")
    if len(page) < 27 or not page[5] & 4:
        raise _truncated("its last page does not say that it is the last")


def _check_file(file: SoundFile, settings: AudioSettings, facts: Mapping[str, object]) -> None:
    if file.format not in settings.formats:
        raise _unknown(file.format, settings)
    rate = checked_rate(file.samplerate)
    if facts.get("sampling_rate", rate) != rate:
        raise DataError(
            "the row says another rate than the file",
            field="sampling_rate",
            got=f"{facts['sampling_rate']} in the row, {rate} in the file",
            fix="remove it from the row: a file says its own",
        )
    check_channels(file.channels, settings)
    for name, said, there in _SIZES.findall(file.extra_info):
        if int(said) > int(there) and int(said) != _STREAMED:
            raise _truncated(f"{name} of {said} bytes, of which {there} are there")


def _unknown(found: str, settings: AudioSettings) -> DataError:
    return DataError(
        "this is no sound of a kind that is decoded",
        field=FIELD,
        got=found,
        fix=f"convert it to one of {', '.join(settings.formats)}",
    )


def _truncated(found: str) -> DataError:
    return DataError("a sound is cut off, or its header is wrong", field=FIELD, got=found, fix="get the file again")


def _undecodable(part: Part, said: str) -> DataError:
    error = DataError(
        "a sound cannot be decoded", field=FIELD, got=printable(said), fix="get the file again, or remove the row"
    )
    return _named(error, part)


def _named(error: DataError, part: Part) -> DataError:
    """The same error with the name of the file in what was found."""
    if not isinstance(part.value, File):
        return error
    got = f"{shown(str(part.value))}: {error.got}"
    return DataError(error.what, field=error.field, got=got, fix=error.fix)


def _library() -> ModuleType:
    """The soundfile library, or the error that says how to get it."""
    try:
        import soundfile
    except ModuleNotFoundError as error:
        fix = 'pip install "modalign[audio]"'
        raise MissingExtra("decoding a sound needs soundfile", got="not installed", fix=fix) from error
    except (ImportError, OSError) as error:  # OSError: its libsndfile is missing
        raise ModelError(
            "soundfile, which decodes sounds, is installed and broken",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="pip install --force-reinstall --no-deps soundfile",
        ) from error
    return soundfile
