"""Learned queries that read an encoder's embeddings: as many states come out however many embeddings go in.

m embeddings, q queries, d width of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import final

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from modalign.connectors.block import Block
from modalign.connectors.options import ConnectorOptions, check_embeddings, check_widths, checked, seeded
from modalign.errors import ConfigError, ShapeError
from modalign.roles import Connector


@final
class QueryOptions(ConnectorOptions):
    """How a query connector looks."""

    queries: PositiveInt = 64
    """States that come out of each medium."""

    depth: PositiveInt = 2
    """Blocks of cross-attention and an MLP."""

    heads: PositiveInt = 8
    """Attention heads; they divide the backbone's width."""

    expansion: PositiveInt = 4
    """Width of the MLP between its layers, in widths of the backbone."""


@final
class QueryConnector(Connector):
    """Learned queries with cross-attention, as in Flamingo's resampler, https://arxiv.org/abs/2204.14198.

    It reads a set: the order of the embeddings does not matter, and neither does repeating all of them. Where each
    one lies is what the encoder has written into it.

    width, out: of the embeddings and of the states (d).
    options: of `QueryOptions`.

    >>> connector = QueryConnector.make(8, 16, queries=5, heads=4)
    >>> connector(torch.zeros(3, 8)).shape, connector.length(100)
    (torch.Size([5, 16]), 5)
    """

    def __init__(self, width: int, out: int, **options: object) -> None:
        super().__init__()
        chosen = checked(QueryOptions, options)
        check_widths(width, out)
        if out % chosen.heads:
            raise ConfigError(
                "heads must divide the backbone's width", where="heads", got=f"{chosen.heads}, of a width of {out}"
            )
        self.width, self.out = width, out
        self.settings: Mapping[str, object] = MappingProxyType(chosen.model_dump())
        with seeded(chosen.seed):
            self.queries = nn.Parameter(torch.randn(chosen.queries, out) * 0.02)
            self.ahead = nn.Sequential(nn.Linear(width, out), nn.LayerNorm(out))
            self.blocks = nn.ModuleList(Block(out, chosen.heads, chosen.expansion) for _ in range(chosen.depth))
            self.norm = nn.LayerNorm(out)

    def length(self, cost: int) -> int:
        del cost
        return self.queries.shape[0]

    def forward(self, embeddings: Tensor) -> Tensor:
        check_embeddings(embeddings, self.width)
        if not embeddings.shape[0]:
            raise ShapeError("queries need at least one embedding to read", got=tuple(embeddings.shape))
        read = self.ahead(embeddings)  # m d
        states = self.queries
        for block in self.blocks:
            states = block(states, read)
        return self.norm(states)
