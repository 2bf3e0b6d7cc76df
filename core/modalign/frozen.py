"""The empty mapping that core's frozen dataclasses have as a default, and how frozen mappings cross to a process."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Never

_EMPTY: Final[Mapping[str, Never]] = MappingProxyType({})


def empty() -> Mapping[str, Never]:
    """A mapping that holds nothing and never will: ``field(default_factory=empty)``.

    >>> from copy import deepcopy
    >>> deepcopy(empty())
    mappingproxy({})
    """
    return _EMPTY


def frozen(values: Mapping[str, object]) -> Mapping[str, object]:
    """The same values in a mapping that cannot be changed; what a pickled one is made by again."""
    return MappingProxyType(dict(values))


def _parts(proxy: Mapping[str, object]) -> tuple[Callable[..., object], tuple[dict[str, object]]]:
    return frozen, (dict(proxy),)


# Python can neither pickle nor deeply copy one, though both are well defined: a spawned worker is sent comparisons,
# batches and the settings of connectors, and a reference is a deep copy of a model
copyreg.pickle(MappingProxyType, _parts)  # pyright: ignore[reportArgumentType]
