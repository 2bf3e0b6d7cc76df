"""Seeded noise and times, the same for every scorer of a comparison, on every device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor


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

    >>> key = DrawKey(comparison="a", modality="m", occurrence=0)
    >>> Draws(seed=1).noise(key, 0, (2,)).equal(Draws(seed=1).noise(key, 0, (2,)))
    True
    """

    seed: int = 0
    epoch: int | None = None
    count: int = 1

    def noise(self, key: DrawKey, draw: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of ``shape``, float32, on the CPU. Equal shapes get equal noise."""
        return torch.randn(shape, generator=self._generator(key, draw, "noise"))

    def uniform(self, key: DrawKey, draw: int) -> float:
        """A number in [0, 1) from which a decoder takes its time."""
        return torch.rand((), generator=self._generator(key, draw, "time"), dtype=torch.float64).item()

    def _generator(self, key: DrawKey, draw: int, stream: Literal["noise", "time"]) -> torch.Generator:
        fields = (self.seed, self.epoch, key.comparison, key.modality, key.occurrence, draw, stream)
        keyed = hashlib.blake2b(repr(fields).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(keyed, "little") >> 1)
