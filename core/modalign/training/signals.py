"""Stopping in order: the first signal asks, the second leaves.

A batch system that takes a machine back sends SIGTERM or SIGUSR1 and waits; a person presses Ctrl-C. The handler only
sets a flag: the trainer looks at it between steps, saves and ends. The flag is this process's own; where several ranks
train, the trainer reduces it over them, so that all stop at the same step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import weakref
from types import FrameType, TracebackType
from typing import Self, final

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
PREEMPTED, INTERRUPTED = 75, 130  #: exit codes of a process that a second signal ends
# A launcher passes on a signal that its ranks got from the terminal or the batch system as well: that is one request.
_SAME_REQUEST = 0.3  # seconds


@final
class Stop:
    """Whether this process was asked to stop, for the time of a block; earlier handlers are back after it.

    Outside the main thread no handler can be set: `request` still works.

    >>> with Stop() as stop:
    ...     signal.raise_signal(signal.SIGUSR1)
    ...     stop.requested, stop.name
    (True, 'SIGUSR1')
    """

    def __init__(self) -> None:
        self.requested = False  #: a plain attribute: reading it costs nothing
        self.name: str | None = None
        self._pid = os.getpid()
        self._before: dict[signal.Signals, object] = {}
        self._pipe: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None
        self._wakeup_before = -1

    def request(self, name: str) -> None:
        """Ask to stop; the first name stays."""
        if not self.requested:
            self.name = name
            self.requested = True

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        # The kernel's part of a handler writes the signal's number into the pipe even while the main thread is stuck
        # in a kernel or a collective and cannot run Python: a second signal must end the process then too.
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._watcher = threading.Thread(target=self._watch, name="modalign-signals", daemon=True)
        self._watcher.start()
        self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        _active.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is None or self._pid != os.getpid():
            return
        _active.discard(self)
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._pipe[1], b"\0")
        if self._watcher is not None:
            self._watcher.join()
        for end in self._pipe:
            os.close(end)
        self._pipe = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._pid == os.getpid():
            self.request(signal.Signals(number).name)
        elif number != signal.SIGINT:
            # A forked worker: it ends as if it had no handler. Ctrl-C is left to the parent, which still needs it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _watch(self) -> None:
        if self._pipe is None:
            return
        first: float | None = None
        while numbers := os.read(self._pipe[0], 64):
            for number in numbers:
                if number == 0:
                    return
                if number not in SIGNALS:
                    continue
                now, name = time.monotonic(), signal.Signals(number).name
                if first is None:
                    first = now
                    self.request(name)
                elif now - first > _SAME_REQUEST:
                    _leave(number, name)


def _leave(number: int, name: str) -> None:
    words = f"\nmodalign: second signal ({name}): leaving without saving; resume from the last checkpoint\n"
    with contextlib.suppress(OSError):
        os.write(2, words.encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)


_active: weakref.WeakSet[Stop] = weakref.WeakSet()


def _mute_child() -> None:
    # The pipe is the parent's too: a signal to a worker must not look like a second one to the parent.
    if len(_active):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_mute_child)
