"""From an import string to what it names, or to an error that says whose it is and what was expected."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from modalign.errors import PluginError
from modalign.registration.admission import describe_error, quietly
from modalign.registration.kinds import KINDS

if TYPE_CHECKING:
    from modalign.registration.admission import Entry


def resolve(target: str) -> object:
    """What an import string names: ``package.module:Object``, with dots inside the object too."""
    module, _, path = target.partition(":")
    found: object = import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    return found


def make(entry: Entry) -> object:
    """What an entry names, imported, of its role, and made where people get an instance of its kind."""
    kind = KINDS[entry.kind]
    what = f"the {kind.one} {entry.name!r} of {entry.owner}"
    mend = f'pip install --upgrade "{entry.distribution}", or tell its authors'
    try:
        target = quietly(lambda: resolve(entry.target))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin may not end the program
        raise PluginError(
            f"{what} cannot be imported from {entry.target}",
            got=describe_error(error),
            fix=f"run `modalign doctor`, which tries the libraries it needs; if all is well there, {mend}",
        ) from error
    if kind.role is None:
        if not callable(target):
            raise PluginError(f"{what} must be a function", got=f"{entry.target} is {type(target).__name__}", fix=mend)
        return target
    role = cast(type, resolve(kind.role))
    fits = isinstance(target, type) and issubclass(target, role)
    if not fits and not (kind.made and isinstance(target, role)):
        found = target.__name__ if isinstance(target, type) else type(target).__name__
        raise PluginError(
            f"{what} must be a subclass of {role.__module__}.{role.__qualname__}",
            got=f"{entry.target} is {'the class' if isinstance(target, type) else 'an instance of'} {found}",
            fix=mend,
        )
    if not kind.made or not isinstance(target, type):
        return target
    try:
        return quietly(target)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"{what} cannot be made by {entry.target}()", got=describe_error(error), fix=mend) from error
