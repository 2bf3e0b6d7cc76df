"""One law of the plugin contract, tried on one thing that a plugin registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from modalign.errors import PluginError
from modalign.registration.admission import Entry
from modalign.registration.kinds import KINDS


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """One law, and what it is tried on.

    name: what should hold, as a sentence that begins with whose it is.
    run: tries it in an empty folder; raises what is wrong.
    """

    name: str
    run: Callable[[Path], None]


def require(holds: object, what: str, *, got: object = None, fix: str | None = None) -> None:
    """Raise where a law does not hold: what was expected, what was found, what to do."""
    if not holds:
        raise PluginError(what, got=got, fix=fix)


@contextmanager
def refuses(what: str, error: type[Exception]) -> Iterator[None]:
    """Within it a clear error must be raised: of this class, with a message that says something."""
    try:
        yield
    except error as found:
        require(str(found).strip(), f"{what} must raise an error that says what is wrong", got="an empty message")
    except Exception as found:
        raise PluginError(
            f"{what} must raise {error.__name__}", got=f"{type(found).__name__}: {found}", fix="raise it by name"
        ) from found
    else:
        raise PluginError(f"{what} must raise {error.__name__}", got="no error")


def case(entry: Entry, law: str, run: Callable[[Path], None]) -> Case:
    """A case whose errors say whose law it is.

    law: what should hold of the entry.
    """
    name = f"{KINDS[entry.kind].one} {entry.name}: {law}"

    def named(folder: Path) -> None:
        try:
            run(folder)
        except PluginError as error:
            raise PluginError(f"{entry.owner}, {name}: {error.what}", got=error.got, fix=error.fix) from error
        except AssertionError as error:
            raise PluginError(f"{entry.owner}, {name}: {error}") from error
        except Exception as error:
            raise PluginError(f"{entry.owner}, {name}: it raised", got=f"{type(error).__name__}: {error}") from error

    return Case(name=name, run=named)
