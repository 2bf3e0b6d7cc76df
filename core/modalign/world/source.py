"""The oracle world as a data set: what `modalign train dpo --data oracle` reads."""

from __future__ import annotations

from typing import cast, get_args

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.errors import ConfigError, MissingExtra
from modalign.world.preferences import Kind, World

SIZE = 1024  #: rows where no limit is given
KINDS: tuple[Kind, ...] = get_args(Kind)


def data(config: DataConfig) -> list[Comparison]:
    """Rows of the oracle world.

    config: ``split`` is `[MODALITY/]KIND[-test]`: the modality of the responses (by default that of bare words), `sft`,
        `clean` (the default), `shared-defect` or `prompts`, and `-test` for the held-out concepts. ``limit`` is how
        many rows to make, 1024 by default. ``revision`` is the seed, 0 by default.

    >>> rows = data(DataConfig(path="oracle", split="shared-defect", limit=3))
    >>> len(rows), rows[0].kind
    (3, 'pair')
    """
    modality, kind, held_out = _parse(config.split or "clean")
    seed = config.revision or "0"
    if not seed.isdecimal():
        raise ConfigError(
            "the revision of the oracle world is its seed",
            where="revision",
            got=repr(seed),
            fix="give a whole number",
        )
    return world(modality, seed=int(seed)).rows(kind, config.limit or SIZE, held_out=held_out)


def world(modality: str | None = None, *, seed: int = 0) -> World:
    """The world as one modality shows it; by default the one that bare words are of."""
    from modalign.registry import registry

    words = words_modality()
    return World(depiction=registry.depiction(modality or words), words=words, seed=seed)


def words_modality() -> str:
    """Name of the modality whose parts are bare strings: what prompts are made of."""
    from modalign.registry import registry

    entries = registry.entries("modalities")
    for name, entry in entries.items():
        if entry.declarations.get("strings"):
            return name
    raise MissingExtra(
        "the oracle world asks in words, and no installed modality is made of words",
        got=f"registered: {', '.join(entries) or 'none'}",
        fix="install one, for example: pip install 'modalign[all]'; `modalign plugins` lists what failed",
    )


def _parse(split: str) -> tuple[str | None, Kind, bool]:
    modality, _, rest = split.rpartition("/")
    kind = rest.removesuffix("-test")
    if kind not in KINDS:
        raise ConfigError(
            f"the oracle world has no split {split!r}",
            where="split",
            got=repr(rest),
            fix=f"one of {', '.join(KINDS)}, with -test behind it for held-out concepts, "
            "and MODALITY/ before it for responses in another modality",
        )
    return modality or None, cast(Kind, kind), rest.endswith("-test")
