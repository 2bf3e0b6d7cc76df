"""Models put together in Python: encoders before a backbone, decoders behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel

from modalign.config import ConnectorConfig, DecoderConfig, EncoderConfig
from modalign.errors import ConfigError
from modalign.frozen import empty
from modalign.loading import load
from modalign.model import Model

#: A folder or an id; or settings beside it, as `EncoderConfig` and `DecoderConfig` have them.
Placed: TypeAlias = str | Path | Mapping[str, object] | EncoderConfig | DecoderConfig

#: The registered name of a connector; or its settings; None is no connector, where widths are equal.
Connected: TypeAlias = str | Mapping[str, object] | ConnectorConfig | None


def compose(
    backbone: str | Path,
    *,
    encoders: Mapping[str, Placed] = empty(),
    decoders: Mapping[str, Placed] = empty(),
    connectors: Mapping[str, Connected] = empty(),
    **settings: object,
) -> Model:
    """A model of registered parts: what it reads goes through encoders, what it makes comes of decoders.

    backbone: the folder or id of a language model.
    encoders: towers, by the modality that they read, one of each.
    decoders: generators, by the modality that they make, one of each.
    connectors: by `encoders.NAME` or `decoders.NAME`, or by the modality alone where it has one of the two. Of an
        encoder a registered name (`linear`, `mlp`, `query`) or `{"type": ..., "options": {...}}`; of a decoder its
        settings (`queries`, `depth`, `heads`). None behind an encoder is no connector, where widths are equal.
    settings: further fields of `ModelConfig`: `adapter`, `freeze`, `dtype`.
    """
    before, behind = _parts("encoders", encoders), _parts("decoders", decoders)
    for key, one in connectors.items():
        side, name = _place(key, before, behind)
        said = {"type": one} if isinstance(one, str) else None if one is None else _settings(one)
        if "connector" in side[name]:
            raise ConfigError("a connector is said twice", where=f"connectors.{key}", got=said, fix="keep one")
        side[name]["connector"] = said
    return load(backbone, encoders=before, decoders=behind, **settings)


def _settings(one: object) -> dict[str, object]:
    if isinstance(one, BaseModel):
        return one.model_dump(exclude_unset=True)
    return dict(one) if isinstance(one, Mapping) else {"path": str(one)}


def _parts(kind: str, parts: Mapping[str, Placed]) -> dict[str, dict[str, object]]:
    for name, one in parts.items():
        if isinstance(one, list | tuple):
            raise ConfigError(
                f"{len(one)} {kind} for {name}, and nothing says which",
                where=f"model.{kind}.{name}",
                got=", ".join(str(each) for each in one),
                fix="name one of them",
            )
    return {name: _settings(one) for name, one in parts.items()}


_Side = dict[str, dict[str, object]]


def _place(key: str, before: _Side, behind: _Side) -> tuple[_Side, str]:
    """The part that a connector is of."""
    sides = {"encoders": before, "decoders": behind}
    kind, _, name = key.rpartition(".")
    found = [side for said, side in sides.items() if name in side and kind in ("", said)]
    if len(found) == 1:
        return found[0], name
    known = [f"{said}.{one}" for said, side in sides.items() for one in side]
    raise ConfigError(
        f"which part is the connector {key!r} of?" if found else f"a connector of no part: {key!r}",
        where=f"connectors.{key}",
        got=f"parts: {', '.join(known) or 'none'}",
        fix=f"say encoders.{name} or decoders.{name}" if found else "name one of these",
    )
