"""From a backbone to a denoiser: its states, at learned query positions or the last ones, condition the network.

After MetaQueries, Pan et al., https://arxiv.org/abs/2504.06256: the network is used as it is, and is given states in
the place of its own text encoder's.

b segments, k queries, d width of the backbone, w width of what conditions the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, final

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from modalign.connectors.block import Block
from modalign.connectors.options import ConnectorOptions, checked, seeded
from modalign.decoders.readers import Condition
from modalign.errors import ConfigError, ShapeError
from modalign.frozen import empty


@final
@dataclass(frozen=True, kw_only=True)
class Wide:
    """One tensor that conditions a network.

    width: of each vector in it (w).
    rms: root mean square of its values, as the network knows them.
    """

    width: int
    rms: float = 1.0


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a network is conditioned by, as far as states can stand for it.

    sequences: ``k w`` by name, one vector for each query.
    vectors: ``w`` by name, one for all queries.
    masks: ``k`` by name and type, 1 for each query.
    given: the same for every medium, by name.
    most: queries that it can read; None is any number.
    exactly: whether it reads that number alone.
    """

    sequences: Mapping[str, Wide] = field(default_factory=empty)
    vectors: Mapping[str, Wide] = field(default_factory=empty)
    masks: Mapping[str, torch.dtype] = field(default_factory=empty)
    given: Condition = field(default_factory=empty)
    most: int | None = None
    exactly: bool = False


@final
class ConditionerOptions(ConnectorOptions):
    """How a conditioner looks."""

    reads: Literal["queries", "states"] = "queries"
    """What it reads of the language model: its states at learned queries that stand behind all that came before, or the
    last states of that itself, which are the same however the connector trains."""

    queries: PositiveInt | None = None
    """States it reads for each medium; by default 64, or as many as the network can read."""

    depth: PositiveInt = Field(default=2, le=6)
    """Layers in which the states of the queries see one another."""

    heads: PositiveInt = 8
    """Attention heads of them; they divide the backbone's width."""

    expansion: PositiveInt = 4
    """Width of the MLP between its layers, in widths of the backbone."""


@final
class Conditioner(nn.Module):
    """Learned queries, layers that see both ways, and one way out for each tensor that the network wants.

    The last norm of each starts at the root mean square of what it replaces, so that the network sees numbers of the
    size it knows.

    width: of the backbone's states (d).
    wanted: by the network.
    options: of `ConditionerOptions`.

    Where it reads the last states its queries stand for those that a short sequence lacks.

    >>> made = Conditioner(16, Wanted(sequences={"states": Wide(width=4, rms=3.0)}), queries=5, heads=4)
    >>> made.queries.shape, made(torch.randn(2, 5, 16))["states"].shape
    (torch.Size([5, 16]), torch.Size([2, 5, 4]))
    """

    def __init__(self, width: int, wanted: Wanted, **options: object) -> None:
        super().__init__()
        chosen = checked(ConditionerOptions, options)
        count = chosen.queries or min(64, wanted.most or 64)
        if wanted.most is not None and (count > wanted.most or (wanted.exactly and count != wanted.most)):
            which = "exactly" if wanted.exactly else "at most"
            raise ConfigError(
                f"this network reads {which} {wanted.most} vectors", where="queries", got=count, fix=f"{wanted.most}"
            )
        if width % chosen.heads:
            raise ConfigError(
                "heads must divide the backbone's width", where="heads", got=f"{chosen.heads}, of a width of {width}"
            )
        self.width, self.wanted = width, wanted
        self.settings: Mapping[str, object] = MappingProxyType({**chosen.model_dump(), "queries": count})
        with seeded(chosen.seed):
            self.queries = nn.Parameter(torch.randn(count, width) * 0.02)
            # torch's own encoder layer takes another path without gradients, and log-ratios would not be exactly 0
            self.blocks = nn.ModuleList(Block(width, chosen.heads, chosen.expansion) for _ in range(chosen.depth))
            self.outs = nn.ModuleDict({name: _Out(width, one) for name, one in self._wide.items()})

    @property
    def last(self) -> int:
        """How many of the last states it reads; 0 where it has query positions of its own."""
        return len(self.queries) if self.settings["reads"] == "states" else 0

    def filled(self, states: Tensor) -> Tensor:
        """The states ``k d`` it reads of a sequence's last ones, ``m d`` with m <= k."""
        # also where none is missing, so that the queries are reached: a process must not wait for their gradient
        return torch.cat([self.queries[: len(self.queries) - len(states)].to(states.dtype), states])

    @property
    def _wide(self) -> Mapping[str, Wide]:
        return {**self.wanted.sequences, **self.wanted.vectors}

    def forward(self, states: Tensor) -> dict[str, Tensor]:
        """What conditions the network, each tensor with an axis ``b`` before its own.

        states: ``b k d`` of the query positions, or the last ones, `filled`.
        """
        count = self.queries.shape[0]
        if states.ndim != 3 or states.shape[1:] != (count, self.width):
            raise ShapeError(f'expected "b k d" with k={count}, d={self.width}', got=tuple(states.shape))
        read = states.to(self.queries.dtype)
        for block in self.blocks:
            read = block(read)
        many = len(read)
        found = {name: self.outs[name](read) for name in self.wanted.sequences}
        found |= {name: self.outs[name](read.mean(1)) for name in self.wanted.vectors}
        ones = torch.ones(many, count, device=states.device)
        found |= {name: ones.to(kind) for name, kind in self.wanted.masks.items()}
        there = {name: value.to(states.device) for name, value in self.wanted.given.items()}
        return {**found, **{name: value[None].expand(many, *value.shape) for name, value in there.items()}}

    def nothing(self) -> dict[str, Tensor]:
        """What stands for no prompt at all, without an axis ``b``: it comes of states that are 0."""
        found = self.forward(self.queries.new_zeros(1, *self.queries.shape))
        return {name: value[0] for name, value in found.items()}


class _Out(nn.Module):
    """Vectors ``... d`` as ``... w`` of a size."""

    def __init__(self, width: int, wide: Wide) -> None:
        super().__init__()
        if not (wide.width > 0 and wide.rms > 0 and math.isfinite(wide.rms)):
            msg = f"a width above 0 and a finite root mean square above 0, not {wide.width} and {wide.rms}"
            raise ValueError(msg)
        self.enter = nn.Linear(width, wide.width)
        self.norm = nn.RMSNorm(wide.width)
        nn.init.constant_(self.norm.weight, wide.rms)

    def forward(self, read: Tensor) -> Tensor:
        return self.norm(self.enter(read))
