"""Averaged weights: an exponential moving average of what trains, which is what is evaluated and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch


@final
class Average:
    """``average = d * average + (1 - d) * weight`` after every step, in float32.

    ``d`` is the smaller of the decay and ``(1 + step) / (10 + step)``, so that what the weights were before the first
    steps is soon forgotten (the warm-up of diffusers' own training scripts).

    weights: what trains, by name.
    decay: in (0, 1): near 1 it changes slowly.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> average = Average({"weight": weight}, decay=0.5)
    >>> weight.data.fill_(1.0)
    tensor([1.])
    >>> average.update(step=100)
    >>> average.tensors["weight"]
    tensor([0.5000])
    """

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.weights, self.decay = dict(weights), decay
        self.tensors = {name: value.detach().float().clone() for name, value in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.tensors.items():
            average.lerp_(self.weights[name].detach().float(), 1 - decay)

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Within it copies of the averages stand in the model; after it the weights are what they were, to the bit."""
        before = {name: value.data for name, value in self.weights.items()}
        self.take()
        try:
            yield
        finally:
            for name, value in self.weights.items():
                value.data = before[name]

    def take(self) -> None:
        """Put the averages into the model for good."""
        for name, value in self.weights.items():
            value.data = self.tensors[name].to(value.dtype, copy=True)
