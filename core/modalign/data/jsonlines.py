"""Rows of JSON files: a line each, found again by its offset; compressed ones unpacked within bounds; lists whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, final

from modalign.data.source import Row, Rows, Source
from modalign.data.strict import decode, parse, record
from modalign.errors import DataError
from modalign.shown import printable

MAX_LINE = 64 << 20  #: bytes of one row
MAX_RATIO = 200  #: how much larger than itself a compressed file may become,
FLOOR = 16 << 20  #: beyond this many bytes, below which any ratio is harmless
MAX_UNPACKED = 4 << 30  #: bytes of an unpacked file, whatever its ratio: it is held in memory
MAX_LIST = 1 << 30  #: bytes of a JSON list, which is read whole

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


@final
class JsonLines(Source):
    """A file with one JSON object per line; blank lines are no rows. Rows are numbered by their line.

    path: the file.
    content: of a compressed file, unpacked; None reads the file itself, a row at a time.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.name, self._path, self._content = str(path), path, content
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._lines = array("Q")
        self._size = 0
        with self._open() as file:
            self._index(file)

    def _index(self, file: BinaryIO) -> None:
        offset = 0
        for line in iter(lambda: file.readline(MAX_LINE + 1), b""):
            self._size += 1
            if len(line) > MAX_LINE:
                raise DataError(
                    f"a line of more than {MAX_LINE >> 20} MiB", file=self.name, row=self._size, field="(whole row)"
                )
            start = len(_BOM) if offset == 0 and line.startswith(_BOM) else 0
            if start:
                self.notes = (
                    f"{printable(self.name)} begins with a byte-order mark, which is no part of its first row",
                )
            if not line[start:].isspace() and line[start:]:
                self._offsets.append(offset + start)
                self._lengths.append(len(line) - start)
                self._lines.append(self._size)
            offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def row(self, number: int) -> Row:
        with self._open() as file:
            return self._read(file, number)

    def __iter__(self) -> Iterator[Row | DataError]:
        with self._open() as file:
            for number in range(len(self)):
                try:
                    row = self._read(file, number)
                except DataError as error:
                    yield error
                else:
                    yield row

    def place(self, number: int) -> tuple[str, int]:
        return self.name, self._lines[number]

    def stable(self, number: int) -> tuple[str, int]:
        return self._path.name, self._lines[number]

    def _digest(self) -> str:
        return digest_of_file(self._path)

    def _open(self) -> BinaryIO:
        # opened anew each time: an offset shared with a forked process would be moved by both
        return self._path.open("rb") if self._content is None else io.BytesIO(self._content)

    def _read(self, file: BinaryIO, number: int) -> Row:
        offset, length = self._offsets[number], self._lengths[number]
        file.seek(offset)
        raw = file.read(length)
        if len(raw) != length:
            raise DataError("the file has become shorter since it was opened", got=f"{len(raw)} of {length} bytes")
        try:
            return record(parse(decode(raw, offset=offset).rstrip("\r\n")))
        except DataError as error:
            if error.what == "not valid JSON" and number == len(self) - 1 and not raw.endswith(b"\n"):
                raise DataError(
                    "the last line is cut off",
                    field=error.field,
                    got=error.got,
                    fix="fetch the file again, or remove the line",
                ) from error
            raise


def json_file(path: Path) -> Source:
    """The rows of a `.jsonl` or `.json` file, compressed or not; a `.json` file may be a list of rows."""
    content = unpack(path) if path.suffix == ".gz" else None
    if (path.stat().st_size if content is None else len(content)) == 0:
        raise DataError("the file is empty", file=str(path), got="0 bytes", fix="fetch or write it again")
    listed = Path(path.stem if path.suffix == ".gz" else path.name).suffix == ".json"
    if listed and _begins(path, content).lstrip(_BOM + b" \t\r\n").startswith(b"["):
        return _json_list(path, content)
    return JsonLines(path, content)


def _begins(path: Path, content: bytes | None) -> bytes:
    if content is not None:
        return content[:_BLOCK]
    with path.open("rb") as file:
        return file.read(_BLOCK)


def _json_list(path: Path, content: bytes | None) -> Source:
    if (size := path.stat().st_size if content is None else len(content)) > MAX_LIST:
        raise DataError(
            f"a JSON list of more than {MAX_LIST >> 20} MiB must be read whole",
            file=str(path),
            got=f"{size >> 20} MiB",
            fix="write it as JSON lines: jq -c '.[]' FILE > FILE.jsonl",
        )
    raw = path.read_bytes() if content is None else content
    try:
        value = parse(decode(raw.removeprefix(_BOM)))
    except DataError as error:
        raise error.at(file=str(path)) from error
    assert isinstance(value, list)
    rows = Rows(value, str(path), stem=path.name)
    if raw.startswith(_BOM):
        rows.notes = (f"{printable(str(path))} begins with a byte-order mark, which is skipped",)
    return rows


def unpack(path: Path) -> bytes:
    """The content of a gzip file, refused where it is broken or grows beyond reason."""
    size = path.stat().st_size
    most = min(MAX_UNPACKED, max(FLOOR, MAX_RATIO * size))
    content = bytearray()
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                content += block
                if len(content) > most:
                    raise DataError(
                        "a compressed file that grows beyond reason",
                        file=str(path),
                        got=f"more than {most >> 20} MiB from {size} bytes",
                        fix="if you trust it, unpack it yourself: gunzip FILE",
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            "a compressed file that is broken or cut off",
            file=str(path),
            got=f"{error} after {len(content)} bytes",
            fix="fetch the file again",
        ) from error
    return bytes(content)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
