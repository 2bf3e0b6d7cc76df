"""Reward heads that an objective needs and a model has not."""

from __future__ import annotations

import logging

import torch

from modalign.errors import ModelError
from modalign.model import Model
from modalign.objectives.base import Objective

log = logging.getLogger("modalign")


def add_heads(model: Model, objective: Objective, *, seed: int) -> None:
    """Give a model the reward heads that an objective needs and it has not: linear ones, started from a seed."""
    missing = [name for name in objective.needs.heads if name not in model.heads]
    if not missing:
        return
    if model.backbone is None:
        raise ModelError(
            f"{type(objective).__name__} needs a reward head, which reads the states of a backbone",
            got="a model without a backbone",
            fix="use a model with one",
        )
    from modalign.registry import registry

    place = next(model.backbone.parameters()).device
    for name in missing:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every device's generator
            head = registry.head("linear")(model.backbone.width, dimensions=(name,))
        model.heads[name] = head.to(place)
        log.info("a new linear head %r reads the states of the backbone", name)
