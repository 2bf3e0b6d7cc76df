"""What of a model trains: parts a config names are frozen, and a word in the log says which train."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from torch import nn

from modalign.errors import ConfigError
from modalign.model import Model
from modalign.roles import Decoder, Encoder

_LOG = logging.getLogger("modalign")

DEFAULT = ("encoders",)  #: what does not train unless a config says otherwise


def freeze(model: Model, names: Sequence[str] | None) -> None:
    """Freeze parts of a model.

    names: kinds of part, or single ones (`encoders.NAME`); None is `DEFAULT`.
    """
    known = parts(model)
    for name in DEFAULT if names is None else names:
        if name not in known:
            raise ConfigError(
                f"this model has no part {name!r}",
                where="model.freeze",
                got=name,
                fix=f"parts: {', '.join(known)}",
            )
        for module in known[name]:
            if _adapted(model, module):
                if names is None:
                    continue  # what is beneath adapters is frozen already
                raise ConfigError(
                    f"{name} holds the adapters that are to train",
                    where="model.freeze",
                    got=name,
                    fix="leave it out: with an adapter the weights beneath are frozen anyway",
                )
            module.requires_grad_(False)
    _LOG.info("%s", summary(model))


def _adapted(model: Model, module: nn.Module) -> bool:
    """Whether a part holds adapters."""
    if model.assembly.adapters is None:
        return False
    own = {id(value) for value in model.assembly.adapters.parameters()}
    return any(id(value) in own for value in module.parameters())


def parts(model: Model) -> dict[str, list[nn.Module]]:
    """The modules of each kind, and of each part by name."""
    found: dict[str, list[nn.Module]] = {"encoders": [], "connectors": []}
    for name, encoder in model.encoders.items():
        towers, connectors = cast(Encoder, encoder).parts()
        found["encoders"] += towers
        found["connectors"] += connectors
        found[f"encoders.{name}"] = list(towers)
        if connectors:
            found[f"connectors.{name}"] = list(connectors)
    for name, connector in model.connectors.items():
        found["connectors"].append(connector)
        found.setdefault(f"connectors.{name}", []).append(connector)
    if model.backbone is not None:
        found["backbone"] = [model.backbone]
    found["decoders"] = []
    for name, decoder in model.decoders.items():
        own, connectors = cast(Decoder, decoder).parts()
        found["decoders"] += own
        found["connectors"] += connectors
        found[f"decoders.{name}"] = own
        if connectors:
            found.setdefault(f"connectors.{name}", []).extend(connectors)
    return found


def summary(model: Model) -> str:
    """What trains, by kind of part, in numbers of parameters."""
    counted: dict[str, tuple[int, int]] = {}
    known = parts(model) | {"heads": list(model.heads.children())}
    for name in ("encoders", "connectors", "backbone", "decoders", "heads"):
        once = {id(value): value for module in known.get(name, ()) for value in module.parameters()}
        if once:
            trains = sum(value.numel() for value in once.values() if value.requires_grad)
            counted[name] = (trains, sum(value.numel() for value in once.values()))
    said = (f"{name} {trains:,} of {total:,}" for name, (trains, total) in counted.items())
    return f"parameters that train: {'; '.join(said)}"
