"""A response as it is made, event by event: for a user interface, which shows words before the sentence is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, final

from modalign.content import Message, Part, Response


class Event:
    """Something that has happened to a response."""


@final
@dataclass(frozen=True)
class Said(Event):
    """Words that follow what was said before."""

    words: str


@final
@dataclass(frozen=True)
class Opened(Event):
    """A medium is being made."""

    modality: str


@final
@dataclass(frozen=True)
class Made(Event):
    """A medium is there."""

    part: Part


@final
@dataclass(frozen=True)
class Ended(Event):
    """The whole response: all that was said and made."""

    response: Response


class _Closed(BaseException):
    """Nobody listens any more. No `Exception`, so that nothing between takes it for a fault of the model."""


_LISTENER: Final[ContextVar[Callable[[Event], None] | None]] = ContextVar("modalign listener", default=None)


def heard() -> bool:
    """Whether somebody listens to what is being made here."""
    return _LISTENER.get() is not None


def tell(event: Event) -> None:
    """Say what has happened, where somebody listens."""
    if (listener := _LISTENER.get()) is not None:
        listener(event)


def stream(
    make: Callable[[Sequence[Sequence[Message]]], list[Response]], prompt: Sequence[Message]
) -> Generator[Event, None, None]:
    """The events of one response, the last of them `Ended`; whoever stops early stops the model too.

    make: prompts to responses, in a thread of its own; an error of its is raised here.
    """
    events: SimpleQueue[Event | BaseException] = SimpleQueue()
    closed = threading.Event()
    told: list[Event] = []

    def listen(event: Event) -> None:
        if closed.is_set():
            raise _Closed
        told.append(event)
        events.put(event)

    def work() -> None:
        _LISTENER.set(listen)
        try:
            (response,) = make([prompt])
            if not told:  # a model that tells nothing is heard at its end
                for part in response.parts():
                    listen(Said(part.value) if isinstance(part.value, str) else Made(part))
            listen(Ended(response))
        except _Closed:
            pass
        except BaseException as error:
            events.put(error)

    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    try:
        while not isinstance(event := events.get(), Ended):
            if isinstance(event, BaseException):
                raise event
            yield event
        yield event
    finally:
        closed.set()
        thread.join()
