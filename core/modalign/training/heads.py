"""Reward heads that an objective needs and a model has not."""

from __future__ import annotations

import logging

import torch
from torch import nn

from modalign.errors import ConfigError, ModalignError, ModelError
from modalign.heads.reading import ReadingHead
from modalign.model import Model
from modalign.objectives.base import HeadSpec, Objective
from modalign.registry import registry
from modalign.roles import Head

log = logging.getLogger("modalign")


def add_heads(model: Model, objective: Objective, *, seed: int) -> None:
    """Give a model the reward heads that an objective needs and it has not, started from a seed.

    One it has must give the numbers that the objective reads; none may read a state that no response reaches.
    """
    name, needs = type(objective).__name__, objective.needs
    for head in needs.heads:
        if head in model.heads:
            _check(model, head, needs.spec(head), name)
            _check_read(model, head, model.heads[head])
    missing = [head for head in needs.heads if head not in model.heads]
    if not missing:
        return
    if model.backbone is None:
        raise ModelError(
            f"{name} needs a reward head, which reads the states of a backbone",
            got="a model without a backbone",
            fix="use a model with one",
        )
    place = next(model.backbone.parameters()).device
    for head in missing:
        spec = needs.spec(head)
        made = _make(spec, model.backbone.width, seed=seed).to(place)
        _check_read(model, head, made)
        model.heads[head] = made
        log.info("a new %s head %r reads the states of the backbone", spec.type, head)


def _make(spec: HeadSpec, width: int, *, seed: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every device's generator
        try:
            return registry.head(spec.type)(width, dimensions=spec.dimensions, **spec.options)
        except ModalignError:
            raise
        except TypeError as error:
            raise ConfigError(
                f"the reward head {spec.type!r} cannot be made with these settings",
                where="objective.head_options",
                got=f"{dict(spec.options)}: {error}",
                fix="use settings that the head's class has",
            ) from error


def _check(model: Model, name: str, spec: HeadSpec, objective: str) -> None:
    """Raise where a head's numbers are not those that the objective would have made."""
    found = model.heads[name]
    assert isinstance(found, Head)
    wanted = _make(spec, 1, seed=0).dimensions
    if found.dimensions != wanted:
        raise ModelError(
            f"{objective} needs the reward head {name!r} to give {', '.join(wanted)}",
            got=f"a {type(found).__name__} that gives {', '.join(found.dimensions)}",
            fix="name another head (objective.head) to train a new one, or set objective.dimensions to what it gives",
        )


def _check_read(model: Model, name: str, head: nn.Module) -> None:
    """Raise where a head reads the first state of a backbone whose first state is the same for every response."""
    if isinstance(head, ReadingHead) and head.read == "first" and model.backbone is not None and model.backbone.causal:
        raise ConfigError(
            f"the reward head {name!r} reads the first state, which has seen nothing of a response",
            where="objective.head_options.read",
            got=f"first, and a {type(model.backbone).__name__}, which is causal: both responses would get one number",
            fix="use last, or the id of a special token that is appended to each response: it does what CLS does",
        )
