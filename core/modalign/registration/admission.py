"""Lets one plugin in, or keeps the reason why not: a plugin that fails takes no other down."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, TypeVar, cast, final

import pluggy
from packaging.utils import canonicalize_name

from modalign.errors import MissingExtra, ModalignError, PluginError
from modalign.hookspecs import Hooks, hookimpl
from modalign.registration.discovery import OWN, Found, absent, obstacle
from modalign.registration.kinds import KINDS, mismatch

_PREFIX = "register_"

T = TypeVar("T")

Status = Literal["ok", "absent", "failed"]


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered name; nothing of it has been imported.

    kind: of thing, the hook's name without `register_`.
    name, target: what it is called, and the import string.
    declarations: what the plugin said of it.
    plugin, distribution, version: who registered it.
    """

    kind: str
    name: str
    target: str
    declarations: Mapping[str, object]
    plugin: str
    distribution: str
    version: str

    @property
    def own(self) -> bool:
        """Whether it is one of ours."""
        return canonicalize_name(self.distribution) == OWN

    @property
    def qualified(self) -> str:
        """The name that no other distribution can claim: ``distribution:name``."""
        return f"{self.distribution}:{self.name}"

    @property
    def owner(self) -> str:
        """Who registered it, in words."""
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"


@final
@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """One plugin and what came of it.

    name: of the entry point; ``target``: the module it names.
    distribution, version: whose it is.
    own: whether the distribution is modalign itself.
    status: `absent` is a plugin whose extra nobody installed.
    entries: what it registered; nothing where it failed.
    failures: why it cannot be used, or which of its targets could not.
    """

    name: str
    target: str
    distribution: str
    version: str
    own: bool
    status: Status
    entries: tuple[Entry, ...] = ()
    failures: tuple[PluginError, ...] = ()


def admit(found: Found) -> PluginRecord:
    """Check a plugin's metadata, import its module, call its hooks; never raises but for `KeyboardInterrupt`."""
    if (reason := obstacle(found)) is not None:
        nobody_asked = isinstance(reason, MissingExtra) and absent(found)
        return _record(found, "absent" if nobody_asked else "failed", failure=reason)
    try:
        module = quietly(found.point.load)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin may not end the program
        failure = PluginError(f"{found} cannot be imported", got=describe_error(error), fix=mend(found))
        failure.__cause__ = error
        return _record(found, "failed", failure=failure)
    return admit_object(found, module)


def admit_object(found: Found, plugin: object) -> PluginRecord:
    """Let an imported plugin in: its hooks are checked against the contract, then called."""
    try:
        entries = _collect(found, plugin)
    except PluginError as failure:
        return _record(found, "failed", failure=failure)
    return _record(found, "ok", entries=entries)


def mend(found: Found) -> str:
    """What to do about a plugin that is installed and broken."""
    if found.own:
        return f"{found.install}; if that does not help, report it with `modalign doctor --json`"
    return f"{found.install}, or pip uninstall {found.distribution}"


def describe_error(error: BaseException) -> str:
    """An error on one line, free of control characters, with the one it began with: at most 300 characters of each."""
    first = error
    for _ in range(10):  # a chain may be a ring
        if first.__cause__ is None:
            break
        first = first.__cause__
    one, other = _described(error), _described(first)
    return one if other in one else f"{one}; because of {other}"


def _described(error: BaseException) -> str:
    try:
        words = " ".join(str(error).split())
    except Exception:
        words = "(its message cannot be read)"
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    return f"{type(error).__name__}: {words}"[:300].removesuffix(": ")


def _record(
    found: Found, status: Status, *, entries: tuple[Entry, ...] = (), failure: PluginError | None = None
) -> PluginRecord:
    return PluginRecord(
        name=found.point.name,
        target=found.point.value,
        distribution=found.distribution,
        version=found.version,
        own=found.own,
        status=status,
        entries=entries,
        failures=() if failure is None else (failure,),
    )


def quietly(work: Callable[[], T]) -> T:
    """Run a plugin's code with what it prints sent to stderr: stdout may be somebody's JSON."""
    with redirect_stdout(sys.stderr):
        return work()


def _collect(found: Found, plugin: object) -> tuple[Entry, ...]:
    # a manager of its own, so that whatever pluggy finds wrong belongs to this plugin only
    manager = pluggy.PluginManager("modalign")
    manager.add_hookspecs(Hooks)
    _refuse_unmarked(found, plugin)
    try:
        manager.register(plugin)
        _refuse_unknown(found, manager, plugin)
        manager.check_pending()
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"{found} does not fit the contract",
            got=describe_error(error),
            fix="a hook takes one argument: def register_objectives(register)",
        ) from error
    entries: list[Entry] = []
    for caller in manager.get_hookcallers(plugin) or ():
        kind = caller.name.removeprefix(_PREFIX)
        register = _Registrar(found=found, kind=kind, entries=entries)
        try:
            quietly(lambda caller=caller, register=register: caller(register=register))
        except KeyboardInterrupt:
            raise
        except PluginError:
            raise
        except BaseException as error:
            fix = error.fix if isinstance(error, ModalignError) and error.fix else mend(found)
            raise PluginError(
                f"{found} failed in its hook {caller.name}", got=describe_error(error), fix=fix
            ) from error
    return tuple(entries)


def _refuse_unknown(found: Found, manager: pluggy.PluginManager, plugin: object) -> None:
    """A hook that the contract does not have is a misspelt one."""
    known = [f"{_PREFIX}{kind}" for kind in KINDS]
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise PluginError(
                f"{found} has a hook {caller.name!r} that the contract does not know",
                got=f"hooks of this API: {', '.join(known)}",
                fix=_did_you_mean(caller.name, known) or "remove it, or upgrade modalign",
            )


def _refuse_unmarked(found: Found, plugin: object) -> None:
    """A function with a hook's name but without the marker would silently never be called."""
    for kind in KINDS:
        function = getattr(plugin, f"{_PREFIX}{kind}", None)
        if callable(function) and getattr(function, f"{hookimpl.project_name}_impl", None) is None:
            raise PluginError(
                f"{found} defines {_PREFIX}{kind} without marking it as a hook",
                got="a plain function, which nobody would call",
                fix="write @modalign.hookimpl above it",
            )


def _did_you_mean(name: str, known: list[str]) -> str | None:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else None


@final
@dataclass(frozen=True, kw_only=True)
class _Registrar:
    """What a hook is handed: checks one registration and keeps it."""

    found: Found
    kind: str
    entries: list[Entry]

    def __call__(self, name: str, target: str, /, **declarations: object) -> None:
        kind = KINDS[self.kind]
        where = f"{_PREFIX}{self.kind}({name!r}, ...)"
        self._refuse(where, "the name", name, mismatch(name, "name"))
        self._refuse(where, "the target", target, mismatch(target, "target"))
        for key, value in declarations.items():
            if key not in kind.declares:
                known = list(kind.declares)
                raise PluginError(
                    f"{self.found} declares {key!r}, which a {kind.one} does not have",
                    where=where,
                    got=f"known declarations: {', '.join(known)}",
                    fix=_did_you_mean(key, known) or "remove it",
                )
            self._refuse(where, f"declaration {key!r}", value, mismatch(value, kind.declares[key]))
        if missing := sorted(kind.requires - declarations.keys()):
            raise PluginError(
                f"{self.found} does not declare {' and '.join(map(repr, missing))}, which every {kind.one} must",
                where=where,
                got=f"declared: {', '.join(declarations) or 'nothing'}",
                fix=f"register({name!r}, {target!r}, {', '.join(f'{key}=...' for key in missing)})",
            )
        if any((one.kind, one.name) == (self.kind, name) for one in self.entries):
            raise PluginError(f"{self.found} registers the {kind.one} {name!r} twice", where=where, fix="rename one")
        self.entries.append(
            Entry(
                kind=self.kind,
                name=name,
                target=target,
                declarations=MappingProxyType(dict(declarations)),
                plugin=self.found.point.name,
                distribution=self.found.distribution,
                version=self.found.version,
            )
        )

    def _refuse(self, where: str, what: str, value: object, expected: str | None) -> None:
        if expected is not None:
            shown = cast(object, value)
            raise PluginError(
                f"{self.found}: {what} must be {expected}", where=where, got=repr(shown)[:200], fix="correct it"
            )
