"""Which modality claims a block type, a column or a bare string, from what plugins declare; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import final

from modalign.errors import DataError, PluginError
from modalign.registry import Registry, registry
from modalign.roles import Modality
from modalign.shown import shown


@final
@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The declarations of all modalities, turned round.

    blocks: by the `type` of a content block, the modalities that claim it.
    columns: by column, the modalities that claim it.
    types: by modality, the block types it claims.
    strings: modalities whose parts bare strings are.
    """

    blocks: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    types: Mapping[str, tuple[str, ...]]
    strings: tuple[str, ...]

    @classmethod
    def of(cls, source: Registry) -> Vocabulary:
        """What the plugins of a registry declare."""
        blocks: dict[str, tuple[str, ...]] = {}
        columns: dict[str, tuple[str, ...]] = {}
        types: dict[str, tuple[str, ...]] = {}
        strings: list[str] = []
        for name, entry in source.entries("modalities").items():
            types[name] = _names(entry.declarations.get("blocks"))
            for block in types[name]:
                blocks[block] = (*blocks.get(block, ()), name)
            for column in _names(entry.declarations.get("columns")):
                columns[column] = (*columns.get(column, ()), name)
            if entry.declarations.get("strings"):
                strings.append(name)
        return cls(blocks=blocks, columns=columns, types=types, strings=tuple(strings))

    def of_strings(self) -> str:
        """The modality whose parts bare strings are."""
        if not self.strings:
            raise PluginError(
                "no modality takes bare strings",
                got="no plugin declares strings=True",
                fix=_extras() or "install the plugin of the modality that words are",
            )
        return _only(self.strings, "bare strings")

    def of_block(self, kind: str, field: str) -> Modality:
        """The modality that reads blocks of a type."""
        if kind not in self.blocks:
            known = ", ".join(sorted(self.blocks)) or "none"
            raise DataError(
                "no plugin claims blocks of this type",
                field=field,
                got=f"{shown(kind)}; registered: {known}",
                fix=_extras() or "install the plugin that claims it",
            )
        return registry.modality(_only(self.blocks[kind], f"blocks of type {kind!r}"))

    def of_column(self, column: str) -> str:
        """The block type that the items of a claimed column are."""
        name = _only(self.columns[column], f"the column {column!r}")
        if not self.types[name]:
            raise PluginError(
                f"modality {name!r} claims the column {column!r} but no block type",
                fix="declare blocks=(...) where the modality is registered",
            )
        return self.types[name][0]


def _names(declared: object) -> tuple[str, ...]:
    return tuple(str(one) for one in declared) if isinstance(declared, tuple) else ()


def _only(claims: tuple[str, ...], what: str) -> str:
    if len(claims) != 1:
        raise PluginError(f"{what} must belong to one modality", got=", ".join(claims), fix="uninstall one")
    return claims[0]


def _extras() -> str | None:
    """The commands that bring the plugins that are not there."""
    mends = [failure.fix for record in registry.plugins() for failure in record.failures if failure.fix]
    return " or ".join(dict.fromkeys(mends)) or None


_current: ContextVar[Vocabulary | None] = ContextVar("vocabulary", default=None)


def vocabulary() -> Vocabulary:
    """The one in use, else that of the installed plugins."""
    return _current.get() or Vocabulary.of(registry)


@contextmanager
def using(chosen: Vocabulary) -> Iterator[None]:
    """Within it rows are read with this vocabulary: a hundred thousand rows do not each ask the registry."""
    token = _current.set(chosen)
    try:
        yield
    finally:
        _current.reset(token)
