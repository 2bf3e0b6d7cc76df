"""What must hold before a run does any work, and what an objective leaves out of training."""

from __future__ import annotations

import logging
from typing import cast

from torch import nn

from modalign.errors import ModelError
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.roles import Decoder
from modalign.scores import UnitKind

log = logging.getLogger(__name__)


def check_model(model: Model, objective: Objective) -> None:
    """Raise where this model cannot be trained with this objective."""
    name, needs = type(objective).__name__, objective.needs
    objective.backprop()  # a reward that cannot be had is said before any work
    if needs.units:
        if not len(model.decoders):
            raise ModelError(
                f"{name} needs likelihoods", got="a model without decoders", fix="use a model that writes responses"
            )
        kinds: frozenset[UnitKind] = frozenset(cast(Decoder, decoder).kind for decoder in model.decoders.values())
        if not kinds & needs.kinds:  # where only some are wrong the samples decide: see `Assembling`
            objective.refuse(kinds)
    if missing := [head for head in needs.heads if head not in model.heads]:
        raise ModelError(
            f"{name} needs the reward head {missing[0]!r}",
            got=f"heads: {', '.join(model.heads) or 'none'}",
            fix=f"give the model one: modalign.training.heads.add_heads(model, {name}(...), seed=0)",
        )


def leave_out(model: Model, objective: Objective) -> list[str]:
    """Freeze what this objective gives no gradient, so that processes never wait for one; returns the modules' names.

    An objective without units asks no decoder; parameters that a decoder shares (tied embeddings) still train. Reward
    heads it does not name are not in its loss.
    """
    idle: dict[str, nn.Module] = {}
    if not objective.needs.units:
        idle |= {f"decoders.{name}": module for name, module in model.decoders.items()}
    idle |= {f"heads.{name}": module for name, module in model.heads.items() if name not in objective.needs.heads}
    outside = {
        id(parameter)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not any(name.startswith(f"{module}.") for module in idle)
    }
    frozen: list[str] = []
    for name, module in idle.items():
        own = [one for one in module.parameters() if one.requires_grad and id(one) not in outside]
        for parameter in own:
            parameter.requires_grad_(False)
        if own:
            frozen.append(name)
    if frozen:
        log.info("%s does not train %s", type(objective).__name__, ", ".join(frozen))
    if not model.trainable():
        raise ModelError(
            "nothing in this model trains",
            got=f"{sum(1 for _ in model.parameters())} parameters, all frozen",
            fix="set model.adapter, leave something out of model.freeze, or requires_grad_(True) on what should train",
        )
    return frozen
