"""Discrete actions: each dimension of each step in a bin, and a language model that writes the bins.

As RT-2, Brohan et al., https://arxiv.org/abs/2307.15818, and OpenVLA, Kim et al., https://arxiv.org/abs/2406.09246:
bins of equal width between two quantiles of the data. They have a table and a head of their own here, in the place of
the language model's least used tokens.

t steps, a dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.decoders.codes import Codec, CodeDecoder
from modalign.errors import ConfigError
from modalign.roles import Content
from modalign_action.modality import RATE
from modalign_action.space import ActionSpace


@final
class ActionBins(Codec):
    """Chunks of actions to numbers of bins, time-major and dimension-minor, and back to the middles of bins.

    What lies beyond a range is in its first or last bin.

    >>> import torch
    >>> codec = ActionBins(ActionSpace(steps=2, low=(0.0,), high=(1.0,), bins=4))
    >>> codec.encode(Content(modality="action", tensor=torch.tensor([[0.3], [7.0]]))).tolist()
    [1, 3]
    >>> codec.decode(torch.tensor([1, 3])).value
    tensor([[0.3750],
            [0.8750]])
    """

    def __init__(self, space: ActionSpace) -> None:
        super().__init__()
        self.space = space
        self.size, self.length, self.rate = space.bins, space.steps * space.dimensions, space.rate

    @classmethod
    def load(cls, path: str, *, revision: str | None = None, **options: object) -> ActionBins:
        if options or revision:
            got = ", ".join([*options, *(["revision"] if revision else [])])
            raise ConfigError("bins of actions have no such setting", got=got, fix="remove it; action.json says all")
        return cls(ActionSpace.load(path))

    def save(self, folder: Path) -> None:
        self.space.save(folder)

    def encode(self, content: Content) -> Tensor:
        unit = self.space.unit(self.space.check(content.tensor).double())
        codes = ((unit + 1) / 2 * self.size).floor().clamp(0, self.size - 1)
        return rearrange(codes.long(), "t a -> (t a)")

    def decode(self, codes: Tensor) -> Part:
        unit = (rearrange(codes, "(t a) -> t a", a=self.space.dimensions).double() + 0.5) / self.size * 2 - 1
        facts = {} if self.rate is None else {RATE: self.rate}
        return Part(modality="action", value=self.space.back(unit).float(), facts=facts)


@final
class BinDecoder(CodeDecoder):
    """Exact log-probabilities of bins, from the states of a language model."""

    modality: str = "action"
    reads = ActionBins
