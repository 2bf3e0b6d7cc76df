"""The kinds of thing a plugin can register: the role each must fill, and what it may declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@final
@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one hook takes in.

    one: what a single thing of this kind is called.
    role: import string of the class it must be, or be made by; None for a function.
    made: whether people get an instance; else they get the class and make it themselves.
    declares: what may be declared beside name and target, each with how it must look.
    requires: which of these must be.
    """

    one: str
    role: str | None
    made: bool = False
    declares: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    requires: frozenset[str] = frozenset()


def _kind(one: str, role: str | None, *, made: bool = False, requires: str = "", **declares: str) -> Kind:
    return Kind(
        one=one,
        role=role,
        made=made,
        declares=MappingProxyType({**declares, "probe": "target"}),
        requires=frozenset(requires.split()),
    )


#: By the hook's name without `register_`. The role is an import string so that nobody pays for torch to read a name.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "modalities": _kind(
            "modality", "modalign.roles:Modality", made=True, blocks="names", columns="names", strings="bool"
        ),
        "loaders": _kind("loader", "modalign.roles:Loader", made=True),
        "encoders": _kind("encoder", "modalign.roles:Encoder", requires="modality", modality="name"),
        "connectors": _kind("connector", "modalign.roles:Connector"),
        "backbones": _kind("backbone", "modalign.roles:Backbone"),
        "decoders": _kind(
            "decoder", "modalign.roles:Decoder", requires="modality kind", modality="name", kind="unit kind"
        ),
        "formats": _kind("format", "modalign.roles:Format", made=True, priority="int"),
        "heads": _kind("head", "modalign.roles:Head"),
        "objectives": _kind("objective", "modalign.objectives.base:Objective"),
        "rewards": _kind("reward", "modalign.roles:Reward", made=True),
        "ops": _kind("op", None, requires="reference", reference="target"),
        "depictions": _kind("depiction", "modalign.roles:Depiction", made=True, requires="modality", modality="name"),
        "checks": _kind("check", "modalign.roles:Check", made=True),
    }
)

_EXPECTED = {
    "name": "a name: a non-empty str without spaces or colons",
    "names": "a tuple of names",
    "bool": "True or False",
    "int": "a whole number",
    "unit kind": "'token', 'draw' or 'step'",
    "target": "an import string 'package.module:Object'",
}


def mismatch(value: object, form: str) -> str | None:
    """What was expected of a value of this form; None where it is as it should be.

    >>> mismatch("a b", "name")
    'a name: a non-empty str without spaces or colons'
    """
    match form:
        case "name":
            right = isinstance(value, str) and bool(re.fullmatch(r"[^\s:]+", value))
        case "names":
            right = isinstance(value, tuple) and all(mismatch(one, "name") is None for one in value)
        case "bool":
            right = isinstance(value, bool)
        case "int":
            right = isinstance(value, int) and not isinstance(value, bool)
        case "unit kind":
            right = value in ("token", "draw", "step")
        case _:
            right = isinstance(value, str) and bool(_TARGET.fullmatch(value))
    return None if right else _EXPECTED[form]
