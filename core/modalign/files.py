"""Files that rows name: opened by us, inside the folder that data may use, and handed on as file objects.

A decoder that gets a name may fetch a URL or follow a link; one that gets an open file cannot. Each component of a
name is opened relative to the one before it, never through a link, so that nothing can be exchanged in between.

A hard link is one of the names of a file, and no path tells it from another: it is a file of the folder it lies in.
Names go to the file system letter for letter; whether it tells upper from lower case is its own affair.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast, final

from modalign.errors import DataError
from modalign.shown import shown

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # files of that name on Windows
_FIX: Final = "write the path of a file inside the data root, relative to it, with / between folders"


@final
@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file inside a folder.

    root: the folder.
    name: the file's path from there, with ``/`` between components.
    """

    root: Path
    name: str

    def open(self) -> BinaryIO:
        """The open file, or a `DataError` that says why it may not or cannot be opened."""
        return open_beneath(self.root, self.name)

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case."""
        return Path(self.name).suffix.lower()

    def __str__(self) -> str:
        return self.name


def open_beneath(root: Path, name: str) -> BinaryIO:
    """Open a regular file below a folder: no `..`, no link, no device, no URL.

    >>> open_beneath(Path("."), "https://example.org/a.png")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    modalign.errors.DataError: a file inside the data root is needed, not a URL; found: a string ...
    """
    parts = components(name)
    with ExitStack() as stack:
        try:
            # the root may itself be reached through links: the user named it, the data did not
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError("the data root cannot be opened", got=_reason(error), fix="set data.root") from error
        stack.callback(os.close, folder)
        for part in parts[:-1]:
            folder = _open(part, os.O_RDONLY | os.O_DIRECTORY, folder, name)
            stack.callback(os.close, folder)
        # without O_NONBLOCK the opening of a pipe waits for its writer
        handle = _open(parts[-1], os.O_RDONLY | os.O_NONBLOCK, folder, name)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise DataError("this is no regular file", got=shown(name), fix=_FIX)
        return cast(BinaryIO, os.fdopen(handle, "rb"))


def components(name: str) -> tuple[str, ...]:
    """The components of a name that may be opened, or a `DataError`."""
    problem = None
    if not name or not name.strip():
        problem = "the name of a file is empty"
    elif "\0" in name:
        problem = "a file's name holds a NUL"
    elif _SCHEME.match(name):
        problem = "a file inside the data root is needed, not a URL"
    elif name.startswith(("/", "~", "\\")):
        problem = "a path must be relative to the data root"
    elif "\\" in name:
        problem = "a path has / between folders, not a backslash"
    if problem is not None:
        raise DataError(problem, got=shown(name), fix=_FIX)
    parts = tuple(part for part in name.split("/") if part != ".")
    if ".." in parts:
        raise DataError("a path may not leave the data root", got=shown(name), fix=_FIX)
    if not parts or "" in parts:
        raise DataError("this is no path of a file", got=shown(name), fix=_FIX)
    if any(_DEVICES.fullmatch(part) for part in parts):
        raise DataError("some systems take this name for a device", got=shown(name), fix="rename the file")
    return parts


def _open(part: str, flags: int, folder: int, name: str) -> int:
    try:
        return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError, UnicodeError) as error:
        what = "no such file in the data root"
        if isinstance(error, OSError) and _link(part, folder):
            what = "links are not followed: they may lead out of the data root"
        elif isinstance(error, PermissionError):
            what = "this file may not be read"
        elif not isinstance(error, FileNotFoundError):
            what = "this file cannot be opened"
        raise DataError(what, got=f"{shown(name)} ({_reason(error)})", fix=_FIX) from error


def _link(part: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
