"""Seeded noise and times, the same for every scorer of a comparison, on every device.

b samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from modalign.config import Config
from modalign.denoising import Times, Weighting


@final
class DrawConfig(Config):
    """How diffusion and flow decoders draw noise and times; decoders of tokens draw none."""

    count: PositiveInt = 1
    """Draws of noise and time per segment and step (K), of which its log-likelihood is the mean."""

    times: Times = "auto"
    """How times are drawn: `uniform`, `logit_normal`, `stratified` over the batch; `auto` is what the model's own
    training used."""

    time_mean: float = 0.0
    """Of the logits of times, with `logit_normal`."""

    time_spread: PositiveFloat = 1.0
    """Standard deviation of the logits of times, with `logit_normal`."""

    weighting: Weighting = "constant"
    """Weight of a squared error by its time: `constant`, `snr`, or `signal`, the square of the signal, which is
    (1 - t)^2 for flows."""

    prompt_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of training draws whose prompt is left empty, so that guidance without a classifier goes on working."""


@final
@dataclass(frozen=True, kw_only=True)
class DrawKey:
    """What a draw belongs to. Never which response: chosen and rejected share their draws.

    comparison: the comparison's key.
    modality: of the segment.
    occurrence: which segment of that modality in its response, from 0.
    """

    comparison: str
    modality: str
    occurrence: int


@final
@dataclass(frozen=True, kw_only=True)
class Draws:
    """A keyed source of noise and times, made on the CPU so that every device sees the same.

    seed: of the run.
    epoch: None where scores are cached, so that the draws of every epoch are the same.
    count: draws per segment (K).
    times, time_mean, time_spread: how times are drawn; see `modalign.denoising.Process.time`.
    weighting: of squared errors; see `modalign.denoising.Process.weight`.
    prompt_dropout: share of draws whose prompt is left empty.

    >>> key = DrawKey(comparison="a", modality="m", occurrence=0)
    >>> Draws(seed=1).noise(key, 0, (2,)).equal(Draws(seed=1).noise(key, 0, (2,)))
    True
    """

    seed: int = 0
    epoch: int | None = None
    count: int = 1
    times: Times = "auto"
    time_mean: float = 0.0
    time_spread: float = 1.0
    weighting: Weighting = "constant"
    prompt_dropout: float = 0.0

    @staticmethod
    def of(config: DrawConfig, *, seed: int, epoch: int | None = None, dropout: bool = True) -> Draws:
        """What a config says.

        dropout: whether prompts are dropped; in an evaluation they are not.
        """
        said = config.model_dump()
        if not dropout:
            said["prompt_dropout"] = 0.0
        return Draws(seed=seed, epoch=epoch, **said)

    def noise(self, key: DrawKey, draw: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of ``shape``, float32, on the CPU. Equal shapes get equal noise."""
        return torch.randn(shape, generator=self.source(key, draw))

    def source(self, key: DrawKey, draw: int) -> torch.Generator:
        """What `noise` is drawn from, for a sampler that draws it itself."""
        return self._generator(key, draw, "noise")

    def uniform(self, key: DrawKey, draw: int) -> float:
        """A number in [0, 1) from which a decoder takes its time."""
        return self._number(key, draw, "time")

    def quantiles(self, keys: Sequence[tuple[DrawKey, int]]) -> Tensor:
        """A number in [0, 1) for each key and draw, ``b`` in float64; equal ones get equal numbers.

        With `stratified` the different ones of a call are spread: each lies in a part of its own of as many equal parts
        as there are, by lot, so that their order does not matter.
        """
        found = {one: self.uniform(*one) for one in keys}
        if self.times == "stratified":
            order = sorted(found, key=lambda one: self._number(*one, "stratum"))
            found = {one: (part + found[one]) / len(order) for part, one in enumerate(order)}
        return torch.tensor([found[one] for one in keys], dtype=torch.float64)

    def drops(self, key: DrawKey, draw: int) -> bool:
        """Whether the prompt of this draw is left empty."""
        return self.prompt_dropout > 0 and self._number(key, draw, "prompt") < self.prompt_dropout

    def _number(self, key: DrawKey, draw: int, stream: str) -> float:
        return torch.rand((), generator=self._generator(key, draw, stream), dtype=torch.float64).item()

    def _generator(self, key: DrawKey, draw: int, stream: str) -> torch.Generator:
        fields = (self.seed, self.epoch, key.comparison, key.modality, key.occurrence, draw, stream)
        keyed = hashlib.blake2b(repr(fields).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(keyed, "little") >> 1)
