"""AdamW over matrices and the rest, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch.optim import AdamW, Optimizer

from modalign.errors import ConfigError
from modalign.freezing import parts
from modalign.model import Model
from modalign.training.config import TrainingConfig


def make_optimizer(model: Model, config: TrainingConfig) -> AdamW:
    """AdamW, https://arxiv.org/abs/1711.05101: only matrices decay; reward heads may have a rate of their own."""
    rates = _rates(model, config)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in model.trainable().values():
        decay = config.weight_decay if parameter.ndim >= 2 else 0.0
        rate = rates.get(id(parameter), config.learning_rate)
        groups.setdefault((decay, rate), []).append(parameter)
    return AdamW(
        [
            {"params": members, "weight_decay": decay, "lr": rate, "peak": rate}
            for (decay, rate), members in groups.items()
        ],
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(parameter.is_cuda for parameter in model.trainable().values()),
    )


def _rates(model: Model, config: TrainingConfig) -> dict[int, float]:
    """The learning rate of each parameter that has one of its own; what is named more closely goes before its kind."""
    known, rates = parts(model) | {"heads": list(model.heads.children())}, dict(config.learning_rates)
    if config.head_learning_rate is not None:
        rates.setdefault("heads", config.head_learning_rate)
    if unknown := sorted(set(rates) - known.keys()):
        raise ConfigError(
            f"this model has no part {unknown[0]!r}",
            where=f"learning_rates.{unknown[0]}",
            got=rates[unknown[0]],
            fix=f"parts: {', '.join(known)}",
        )
    ordered = sorted(rates, key=lambda name: "." in name)
    return {id(value): rates[name] for name in ordered for one in known[name] for value in one.parameters()}


def schedule(config: TrainingConfig, step: int, steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0. A function of the step, so that nothing is stored.

    The shapes are those of transformers: the first warm-up step is 0, the last step is one before zero.

    >>> [schedule(TrainingConfig(warmup_steps=2), step, 6) for step in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    match config.lr_scheduler_type:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1.0 - done)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))


def set_learning_rate(optimizer: Optimizer, share: float) -> float:
    """Set every group to a share of its peak; returns the rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])
