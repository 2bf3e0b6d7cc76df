"""Named places where a test can make the process die, wait or fail.

`hit("NAME")` does nothing unless the environment variable MODALIGN_FAILPOINTS names the place:

    MODALIGN_FAILPOINTS="save=kill@3;log=sleep:0.5;file-write=raise:ENOSPC" modalign train ...

One entry is `NAME=ACTION` with an optional `@N`: only at the N-th hit of that place, counted from 1; at every hit
without it. Actions:

    kill           the process sends itself SIGKILL
    signal:SIGTERM the process sends itself this signal
    sleep:SECONDS  it waits
    raise:ENOSPC   an OSError with this errno

Places:

    step-begin, forward, backward, optimizer-step, log, save     the training loop
    file-open, file-write, file-fsync, file-close                each file that is written durably
    folder-create, folder-fsync                                  each folder
    checkpoint-commit, checkpoint-committed                      before and after a checkpoint gets its name
    checkpoint-verify, checkpoint-purge, checkpoint-purged       after it has it
    checkpoint-trash, checkpoint-remove                          around taking an old one's name away
    metrics-append                                               each line of the metrics log
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from modalign.errors import ConfigError

VARIABLE = "MODALIGN_FAILPOINTS"


@final
@dataclass(frozen=True, kw_only=True)
class _Action:
    """What happens at a place.

    verb: kill, signal, sleep or raise.
    value: number of the signal or the errno, or seconds.
    at: the one hit that counts, from 1; None for every hit.
    """

    verb: str
    value: float
    at: int | None


_actions: dict[str, _Action] = {}
_trace: list[str] | None = None
_armed = False  # the only thing an ordinary run ever looks at
_hits: Counter[str] = Counter()
_fired: Counter[str] = Counter()


def hit(name: str) -> None:
    """Do at this place what the environment asks for: normally nothing."""
    if _armed:
        _act(name)


def fired() -> Counter[str]:
    """How often each place has acted, so that a test can tell that its fault happened."""
    return Counter(_fired)


@contextmanager
def active(spec: str) -> Iterator[None]:
    """Failpoints for the time of a block, in place of the environment's; hits are counted from the start of it."""
    global _actions  # noqa: PLW0603
    before = _actions
    _actions = _parse(spec)
    _hits.clear()
    _fired.clear()
    _arm()
    try:
        yield
    finally:
        _actions = before
        _arm()


@contextmanager
def traced() -> Iterator[list[str]]:
    """The places that a block passes, in order, so that a test can enumerate them."""
    global _trace  # noqa: PLW0603
    before, _trace = _trace, []
    _arm()
    try:
        yield _trace
    finally:
        _trace = before
        _arm()


def _arm() -> None:
    global _armed  # noqa: PLW0603
    _armed = bool(_actions) or _trace is not None


def _act(name: str) -> None:
    if _trace is not None:
        _trace.append(name)
    action = _actions.get(name)
    if action is None:
        return
    _hits[name] += 1
    if action.at not in (None, _hits[name]):
        return
    _fired[name] += 1
    match action.verb:
        case "kill" | "signal":
            os.kill(os.getpid(), int(action.value))
        case "sleep":
            time.sleep(action.value)
        case _:
            code = int(action.value)
            raise OSError(code, os.strerror(code), f"failpoint {name}")


def _parse(spec: str) -> dict[str, _Action]:
    actions: dict[str, _Action] = {}
    for entry in filter(None, (part.strip() for part in spec.split(";"))):
        name, equals, rest = entry.partition("=")
        what, _, at = rest.partition("@")
        verb, _, argument = what.partition(":")
        try:
            if not (name and equals) or (at and int(at) < 1):
                raise ValueError(entry)
            match verb:
                case "kill" if not argument:
                    value = float(signal.SIGKILL)
                case "signal":
                    value = float(signal.Signals[argument])
                case "sleep":
                    value = float(argument)
                case "raise":
                    value = float(getattr(errno, argument))
                case _:
                    raise ValueError(verb)
            actions[name] = _Action(verb=verb, value=value, at=int(at) if at else None)
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"cannot read the failpoint {entry!r}",
                where=VARIABLE,
                fix="write NAME=kill, NAME=signal:SIGTERM, NAME=sleep:SECONDS or NAME=raise:ENOSPC, with @N for the "
                "N-th hit only, separated by semicolons",
            ) from error
    return actions


_actions = _parse(os.environ.get(VARIABLE, ""))
_arm()
