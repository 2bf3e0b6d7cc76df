"""One writer to a run folder: a lock the kernel frees when its holder dies, and a note that says who that is."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, final

from modalign.errors import ResourceError
from modalign.training.storage.durable import disk_errors

log = logging.getLogger(__name__)

NAME = "run.lock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MOST = 4096  # bytes of a note


class Holder(TypedDict):
    """The note in a lock file: host, process, boot and start of who holds it."""

    host: str
    pid: int
    boot_id: str
    started: str


@final
class RunLock:
    """The right to write to a folder, held from construction to `release`.

    folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._pid = os.getpid()
        self._file = self._acquire()
        try:
            self._take_over()
        except BaseException:
            os.close(self._file)
            raise
        _held.add(self)

    def release(self) -> None:
        """Clear the note and let the folder go."""
        if self._file < 0 or self._pid != os.getpid():
            return
        with suppress(OSError):  # a full disk or a removed folder must not hide why a run ended
            os.ftruncate(self._file, 0)
        self.close()

    def close(self) -> None:
        """Close the file without clearing the note, as a forked child must: its copy would keep the lock alive."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        _held.discard(self)

    def _acquire(self) -> int:
        while True:
            with disk_errors(self.path, _MOST):
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _read(file)
                os.close(file)
                if isinstance(error, BlockingIOError):
                    raise self._refusal(holder) from error
                raise ResourceError(
                    "cannot lock the run folder",
                    where=str(self.path),
                    got=error.strerror,
                    fix="use an output_dir on a file system that has flock, such as a local disk",
                ) from error
            try:
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            os.close(file)  # the folder was moved aside between opening and locking: this is another run's lock now

    def _take_over(self) -> None:
        me = Holder(
            host=socket.gethostname(),
            pid=self._pid,
            boot_id=_boot_id(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if before := _read(self._file):
            # The kernel has freed the lock. Of a process on this host that proves its death; another host's kernel
            # need not tell ours what it holds.
            if before["host"] != me["host"]:
                raise self._refusal(before)
            log.warning("taking over %s: %s did not end in order", self.path.parent, _words(before))
        with disk_errors(self.path, _MOST):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(me).encode() + b"\n", 0)
            os.fsync(self._file)

    def _refusal(self, holder: Holder | None) -> ResourceError:
        here = holder is not None and holder["host"] == socket.gethostname()
        return ResourceError(
            "the run folder is in use by another run",
            where=str(self.path.parent),
            got=_words(holder) if holder else "a process that has not signed yet",
            fix="use another output_dir, or end that run"
            if here or holder is None
            else f"use another output_dir; or, if that process is gone, remove {self.path}",
        )


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _read(file: int) -> Holder | None:
    try:
        note = json.loads(os.pread(file, _MOST, 0))
        return Holder(
            host=str(note["host"]),
            pid=int(note["pid"]),
            boot_id=str(note["boot_id"]),
            started=str(note["started"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(holder: Holder) -> str:
    return f"process {holder['pid']} on host {holder['host']}, started {holder['started']}"
