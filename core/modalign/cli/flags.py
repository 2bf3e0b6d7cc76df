"""Flags to settings: every field of a pydantic model is a flag, nested ones with a dot: `--model.adapter.r 16`.

cyclopts prints the help of these flags but does not read them: laid over a file by it, the file's values become words
that are parsed again, and a list or a number among a loader's free options (`model.options`) does not survive that.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Literal, Union, final, get_args, get_origin

from pydantic import BaseModel

from modalign.errors import ConfigError

_SWITCH = {"true": True, "false": False}
_DEEP = 2  #: keys of a path above this are of a part of a model


@final
@dataclass(frozen=True, kw_only=True)
class Flag:
    """A setting as a flag.

    keys: where it lies in the config.
    kind: `switch` takes no value, `list` takes several, `open` has keys of its own behind a dot, `value` takes one.
    inner: what lies behind each key of an open one, where that has settings: `--model.encoders.NAME.path`.
    """

    keys: tuple[str, ...]
    kind: Literal["switch", "list", "open", "value"]
    inner: type[BaseModel] | None = None


def flags_of(model: type[BaseModel], within: tuple[str, ...] = ()) -> Iterator[Flag]:
    """Every setting of a model.

    >>> from modalign.config import AdapterConfig
    >>> [flag.keys[-1] for flag in flags_of(AdapterConfig) if flag.kind == "list"]
    ['target_modules', 'modules_to_save']
    """
    for name, field in model.model_fields.items():
        keys = (*within, name)
        if (inner := model_in(field.annotation)) is not None:
            yield from flags_of(inner, keys)
            continue
        kinds = {get_origin(one) or one for one in _members(field.annotation)} - {type(None)}
        if kinds == {bool}:
            yield Flag(keys=keys, kind="switch")
        elif kinds <= {tuple, list, frozenset, set}:
            yield Flag(keys=keys, kind="list")
        else:
            held = [model_in(get_args(one)[1]) for one in _members(field.annotation) if get_origin(one) is dict]
            yield Flag(keys=keys, kind="open" if kinds == {dict} else "value", inner=held[0] if held else None)


def parse_flags(model: type[BaseModel], tokens: Sequence[str]) -> dict[str, object]:
    """The settings that flags name, nested, their values as they were typed.

    A flag is spelt with hyphens or underscores; `--model M` is short for `--model.path M`, wherever there is a path.
    """
    known = {".".join(flag.keys): flag for flag in flags_of(model)}
    found: dict[str, object] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.removeprefix("--") or not token.startswith("--"):
            raise ConfigError("a word that belongs to no flag", got=repr(token), fix="quote values that hold spaces")
        spelt, equals, given = token.removeprefix("--").partition("=")
        keys, kind, value = _look_up(spelt.replace("-", "_"), known, token)
        if kind == "switch":
            if equals or (rest and rest[0].lower() in _SWITCH):
                word = given if equals else rest.pop(0)
                value = (_SWITCH[word.lower()] is value) if word.lower() in _SWITCH else word
            _put(found, keys, value)
            continue
        values = [given] if equals else []
        while not equals and rest and not rest[0].startswith("--") and (kind == "list" or not values):
            values.append(rest.pop(0))
        if not values:
            raise ConfigError(f"{token} needs a value", got="none", fix=f"{token} VALUE")
        if kind == "list":
            before = _at(found, keys)
            _put(found, keys, [*before, *values] if isinstance(before, list) else values)
        else:
            before = _at(found, keys)
            if len(keys) > _DEEP and keys[-1] == "path" and before not in (None, values[0]):
                raise ConfigError(
                    f"{token.partition('=')[0]} is given twice, and nothing says which",
                    got=f"{before}, {values[0]}",
                    fix="name one of them",
                )
            _put(found, keys, values[0])
    return found


def merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Settings of ``above`` laid over those of ``below``, key by key.

    >>> merged({"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 3}, "d": {"e": 4}})
    {'a': {'b': 3, 'c': 2}, 'd': {'e': 4}}
    """
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        result[key] = merged(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return result


def model_in(annotation: object) -> type[BaseModel] | None:
    """The pydantic model that a field holds, if it is one or none."""
    for one in _members(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The setting that was meant: one spelt nearly so, or one of that name in another place."""
    if close := difflib.get_close_matches(key, known, n=1):
        return close[0]
    elsewhere = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(elsewhere), n=1)
    return elsewhere[close[0]] if close else None


def _look_up(name: str, known: Mapping[str, Flag], token: str) -> tuple[tuple[str, ...], str, bool]:
    """Keys and kind of the flag of a name; the last is what a switch says."""
    for one in (name, f"{name}.path"):
        if one in known:
            return known[one].keys, known[one].kind, True
    for key, flag in known.items():
        if flag.inner is not None and name.startswith(f"{key}."):
            entry, _, rest = name.removeprefix(f"{key}.").partition(".")
            inside = {".".join(one.keys): one for one in flags_of(flag.inner)}
            keys, kind, value = _look_up(rest or "path", inside, token)
            return (*flag.keys, entry, *keys), kind, value
    parent, dot, last = name.rpartition(".")
    positive = f"{parent}{dot}{last.removeprefix('no_')}"
    if positive != name and positive in known and known[positive].kind == "switch":
        return known[positive].keys, "switch", False
    if parent in known and known[parent].kind == "open":
        return (*known[parent].keys, last), "value", True
    near = nearest(name, [*known, *(one.removesuffix(".path") for one in known if one.endswith(".path"))])
    raise ConfigError(
        f"unknown flag {token.partition('=')[0]}",
        fix=None if near is None else f"did you mean --{near.removesuffix('.path')}?",
    )


def _members(annotation: object) -> list[object]:
    """The types of a union, without what annotates them."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for one in get_args(annotation) for member in _members(one)]
    return [annotation]


def _at(tree: Mapping[str, object], keys: Sequence[str]) -> object:
    node: object = tree
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _put(tree: dict[str, object], keys: Sequence[str], value: object) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        assert isinstance(inner, dict)
        tree = inner
    tree[keys[-1]] = value
