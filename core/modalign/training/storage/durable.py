"""Writing that survives: what was written is on the disk when the call returns, or an error says why not."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from modalign.errors import ResourceError
from modalign.failpoints import hit

BLOCK = 1 << 20  #: bytes written or read at a time
_MARGIN = 1 << 20  # bytes a file system wants for itself: folders, inodes, partly filled blocks


@final
@dataclass(frozen=True, kw_only=True)
class Written:
    """What a file holds: bytes, and their SHA-256 as hex."""

    size: int
    sha256: str


def write_file(path: Path, data: Iterable[bytes | memoryview]) -> Written:
    """Write a new private file and flush it to the disk.

    data: pieces in order; each is hashed as it is written, so that nothing is read back.
    """
    sha, size = hashlib.sha256(), 0
    hit("file-open")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in data:
            view = memoryview(piece)
            for start in range(0, len(view), BLOCK):
                block = view[start : start + BLOCK]
                write_all(file, block)
                sha.update(block)
                size += len(block)
        hit("file-fsync")
        os.fsync(file)
        hit("file-close")
    except BaseException:
        with suppress(OSError):
            os.close(file)
        raise
    os.close(file)  # outside the guard: some file systems report a full disk only here
    return Written(size=size, sha256=sha.hexdigest())


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write every byte: a call may take fewer than it is given."""
    view = memoryview(data)
    while view:
        hit("file-write")
        view = view[os.write(file, view) :]


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content at once: a reader sees the old or the new, never a part."""
    draft = path.with_name(f"tmp-{path.name}-{uuid.uuid4().hex}")
    with disk_errors(path, len(data)):
        try:
            write_file(draft, [data])
            draft.replace(path)
            fsync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a private folder, with the folders it lies in."""
    hit("folder-create")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=exist_ok)


def fsync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk."""
    hit("folder-fsync")
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_regular(path: Path) -> int:
    """A descriptor to read from: of a plain file, never through a link, never waiting on a pipe."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(None, "not a plain file", str(path))
    return file


def free_bytes(path: Path) -> int:
    """Bytes this user may still write to the file system of a folder."""
    system = os.statvfs(path)
    return system.f_bavail * system.f_frsize


def need_space(folder: Path, size: int) -> None:
    """Raise where a folder's file system has no room for so many bytes, before any is written."""
    if (free := free_bytes(folder)) < size + _MARGIN:
        raise ResourceError(
            "no space for a checkpoint",
            where=str(folder),
            got=f"{size + _MARGIN} bytes needed, {free} bytes free",
            fix="free space there, lower save_total_limit, or use an output_dir on another disk",
        )


@contextmanager
def disk_errors(path: Path, size: int) -> Iterator[None]:
    """Turn what the operating system says about writing into a ResourceError with path, needed and free bytes."""
    try:
        yield
    except ResourceError:
        raise
    except OSError as error:
        try:
            free = f"{free_bytes(next(one for one in (path, *path.parents) if one.exists()))} bytes free"
        except OSError:
            free = "free bytes unknown"
        raise ResourceError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            got=f"{size} bytes needed, {free}",
            fix="make sure that the disk has room and that you may write there, then resume from the last checkpoint",
        ) from error


def remove(path: Path) -> None:
    """Remove a file, or a folder and what is in it, as far as that works; what stays is swept at the next start."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
