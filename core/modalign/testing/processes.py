"""Processes for tests that kill them: forked, so that torch is imported once."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable


def start_child(action: Callable[[], object]) -> int:
    """The id of a forked child that does an action and ends with 0, or with 1 where it raised."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child runs single-threaded code and leaves by _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """What a child ended with: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(action: Callable[[], object]) -> int:
    """The exit code of an action done in a forked child."""
    return exit_code(start_child(action))
