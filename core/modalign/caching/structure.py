"""Structured values as tensors by name and JSON, and back: what a tower returned goes to a file without pickle."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from typing import Final, cast

import torch
from torch import Tensor

Json = dict[str, object]  #: one key says what a value is: tensor, absent, value, list, tuple, dict or class

_PLAIN: Final = (type(None), bool, int, float, str)
_LISTS: Final[Mapping[str, type[list[object]] | type[tuple[object, ...]]]] = {"list": list, "tuple": tuple}


def apart(value: object, root: str, without: Collection[str] = ()) -> tuple[dict[str, Tensor], Json]:
    """The tensors of a value by name, and the rest of it; a `TypeError` names what has no such form.

    root: the name of a value that is one tensor; those inside of others are `ROOT.field.0`.
    without: names of tensors of which only type and shape are kept.

    >>> tensors, rest = apart([torch.zeros(2), (None, 3)], "x")
    >>> list(tensors), rest
    (['x.0'], {'list': [{'tensor': 'x.0'}, {'tuple': [{'value': None}, {'value': 3}]}]})
    """
    tensors: dict[str, Tensor] = {}

    def walk(one: object, name: str) -> Json:
        kind = type(one)
        if isinstance(one, Tensor):
            if name in without:
                return {"absent": list(one.shape), "dtype": str(one.dtype).removeprefix("torch.")}
            tensors[name] = one
            return {"tensor": name}
        if kind in _PLAIN:
            return {"value": one}
        if kind in (list, tuple):
            items = cast("list[object]", one)
            return {kind.__name__: [walk(item, f"{name}.{number}") for number, item in enumerate(items)]}
        if isinstance(one, Mapping) and all(isinstance(key, str) for key in one):
            fields = {str(key): walk(item, f"{name}.{key}") for key, item in one.items()}
            if kind is dict:
                return {"dict": fields}
            written = f"{kind.__module__}:{kind.__qualname__}"
            if _kind(written) is kind:
                return {"class": written, "fields": fields}
        msg = f"{name} is of {kind.__module__}.{kind.__qualname__}"
        raise TypeError(msg)

    return tensors, walk(value, root)


def together(rest: Json, tensors: Mapping[str, Tensor]) -> object:
    """The value again; a tensor that was left out has its type and shape, and raises where its numbers are asked."""
    match rest:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"absent": list(shape), "dtype": str(dtype)}:
            return torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        case {"value": value}:
            return value
        case {"list": list(items)} | {"tuple": list(items)}:
            return _LISTS[next(iter(rest))](together(one, tensors) for one in items)
        case {"dict": dict(fields)}:
            return {name: together(one, tensors) for name, one in fields.items()}
        case {"class": str(name), "fields": dict(fields)}:
            kind = _kind(name)
            if kind is None:
                msg = f"no class {name} is loaded"
                raise TypeError(msg)
            return kind(**{field: together(one, tensors) for field, one in fields.items()})
        case _:
            msg = f"no structure: {str(rest)[:80]}"
            raise TypeError(msg)


def _kind(name: str) -> type[Mapping[str, object]] | None:
    """A dataclass that is a mapping, in a module that is loaded already: a file must not name what to import."""
    module, _, qualname = name.partition(":")
    kind = getattr(sys.modules.get(module), qualname, None)
    return kind if isinstance(kind, type) and issubclass(kind, Mapping) and is_dataclass(kind) else None
