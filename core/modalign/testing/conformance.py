"""The plugin contract in executable form: the laws that ours and everyone's plugins keep."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import cast

import torch

from modalign.errors import KernelUnavailable, PluginError
from modalign.registration.admission import Entry, PluginRecord
from modalign.registration.kinds import KINDS
from modalign.registration.targets import make, resolve
from modalign.registry import Registry, registry
from modalign.roles import CheckResult
from modalign.testing.case import Case, case, require
from modalign.testing.connector_laws import connector_cases
from modalign.testing.content_laws import depiction_cases, format_cases, modality_cases
from modalign.testing.encoder_laws import encoder_cases
from modalign.testing.model_laws import model_cases
from modalign.testing.objective_laws import head_cases, objective_cases


def check_plugin(name: str, plugins: Registry = registry) -> list[str]:
    """The laws that a plugin keeps, as sentences; an error that lists every one that it breaks.

    name: of its entry point, or ``distribution:name``.

    >>> "objective dpo: the same scores give the same loss" in check_plugin("core")
    True
    """
    kept: list[str] = []
    broken: list[PluginError] = []
    for one in cases(name, plugins):
        with TemporaryDirectory() as folder:
            try:
                one.run(Path(folder))
            except PluginError as error:
                broken.append(error)
            else:
                kept.append(one.name)
    if broken:
        raise PluginError(
            f"plugin {name!r} breaks {len(broken)} of {len(kept) + len(broken)} laws",
            got="\n  ".join(["", *(str(error) for error in broken)]),
            fix=f"pytest --pyargs modalign.testing --plugin {name} shows each",
        ) from broken[0]
    return kept


def cases(name: str, plugins: Registry = registry) -> list[Case]:
    """Every law that the things a plugin registered should keep, one case each."""
    try:
        record = _record(name, plugins)
    except PluginError as error:
        return [Case(name=f"plugin {name}: it can be used", run=_raising(error))]
    found: list[Case] = []
    for entry in record.entries:
        found.append(case(entry, "its target is of its role", lambda _, entry=entry: _importable(entry)))
        try:
            make(entry)
            found += _LAWS.get(entry.kind, _none)(plugins, entry)
            found += model_cases(plugins, entry) if entry.kind in _PROBED and "probe" in entry.declarations else ()
        except PluginError:
            continue  # the case above says why
        except Exception as error:
            failure = PluginError(f"its laws cannot be tried: {type(error).__name__}: {error}")
            found.append(case(entry, "its laws can be tried", _raising(failure)))
    return found


def _record(name: str, plugins: Registry) -> PluginRecord:
    owner, _, plain = name.rpartition(":")
    records = plugins.plugins()
    matching = [one for one in records if one.name == plain and (not owner or one.distribution == owner)]
    if not matching:
        installed = ", ".join(f"{one.distribution}:{one.name}" for one in records)
        raise PluginError(f"no plugin {name!r}", got=f"installed: {installed}", fix="install it, or correct the name")
    if len(matching) > 1:
        claims = ", ".join(f"{one.distribution}:{one.name}" for one in matching)
        raise PluginError(f"more than one plugin is called {name!r}", got=claims, fix="use the qualified name")
    if not matching[0].entries and matching[0].failures:
        raise matching[0].failures[0]
    return matching[0]


def _raising(error: PluginError) -> Callable[[Path], None]:
    def run(_: Path) -> None:
        raise error

    return run


def _importable(entry: Entry) -> None:
    make(entry)
    if "probe" in entry.declarations:
        _function(entry, "probe")


def _function(entry: Entry, key: str) -> Callable[..., object]:
    """The function that a declaration names."""
    target = cast(str, entry.declarations[key])
    try:
        found = resolve(target)
    except Exception as error:
        raise PluginError(f"its {key} {target} cannot be imported", got=f"{type(error).__name__}: {error}") from error
    require(callable(found), f"its {key} must be a function", got=type(found).__name__)
    return cast("Callable[..., object]", found)


def _op_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    def twin(_: Path) -> None:
        op, reference = plugins.op(entry.qualified), _function(entry, "reference")
        names, plain = (list(inspect.signature(one).parameters) for one in (op, reference))
        require("impl" in names, "an op takes `impl`", got=names, fix='impl: Literal["kernel", "reference", "auto"]')
        rest = [one for one in names if one != "impl"]
        require(rest == plain, f"its twin must take the same arguments, {rest}", got=plain)

    def agrees(_: Path) -> None:
        found = _function(entry, "probe")()
        right = isinstance(found, tuple | dict)
        require(right, "an op's probe returns its arguments, a tuple or by name", got=type(found).__name__)
        given = cast("tuple[object, ...]", found) if isinstance(found, tuple) else ()
        named = cast("dict[str, object]", found) if isinstance(found, dict) else {}
        op = plugins.op(entry.qualified)
        wanted = _function(entry, "reference")(*given, **named)
        torch.testing.assert_close(op(*given, **named, impl="reference"), wanted)
        torch.testing.assert_close(op(*given, **named, impl="auto"), wanted, atol=1e-2, rtol=1e-2)
        try:
            found = op(*given, **named, impl="kernel")
        except KernelUnavailable as error:
            require(error.got and error.fix, "a kernel that cannot run must say why, and what to do", got=str(error))
        else:
            torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-2)

    yield case(entry, "it has a twin of the same arguments", twin)
    if "probe" in entry.declarations:
        yield case(entry, "it agrees with its twin", agrees)


def _check_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    def answers(_: Path) -> None:
        found = plugins.checks()[next(name for name, one in plugins.entries("checks").items() if one is entry)]()
        require(isinstance(found, CheckResult), "a check returns a CheckResult", got=type(found).__name__)
        require(found.ok is not False or found.fix, "a check that fails must say what mends it", got=found.found)

    yield case(entry, "it answers, and says what mends it", answers)


def _reward_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    def nothing(_: Path) -> None:
        found = plugins.reward(entry.qualified)([], [])
        require(found == [], "no responses have no rewards", got=found)

    yield case(entry, "it judges nothing as nothing", nothing)


def _declared_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What a class itself says may not contradict what was declared of it, which is read without importing it."""

    def declared(_: Path) -> None:
        made = make(entry)
        for key in KINDS[entry.kind].requires:
            said = getattr(made, key, entry.declarations[key])  # an instance may set it instead
            require(
                said == entry.declarations[key], f"its {key} must be as declared, {entry.declarations[key]!r}", got=said
            )

    yield case(entry, "its class says what was declared", declared)


def _encoder_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    yield from _declared_cases(plugins, entry)
    yield from encoder_cases(plugins, entry)


def _none(plugins: Registry, entry: Entry) -> Iterator[Case]:
    yield from ()


_LAWS: Mapping[str, Callable[[Registry, Entry], Iterator[Case]]] = MappingProxyType(
    {
        "modalities": modality_cases,
        "formats": format_cases,
        "depictions": depiction_cases,
        "objectives": objective_cases,
        "heads": head_cases,
        "ops": _op_cases,
        "checks": _check_cases,
        "rewards": _reward_cases,
        "encoders": _encoder_cases,
        "connectors": connector_cases,
        "decoders": _declared_cases,
    }
)
_PROBED = frozenset({"loaders", "backbones", "decoders"})  #: kinds whose probe makes a model
