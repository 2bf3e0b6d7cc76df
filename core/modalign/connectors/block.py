"""The layer that connectors are made of: queries that read embeddings, or one another.

m embeddings, q queries, d width, n heads, e width of a head.
"""

from __future__ import annotations

from typing import final

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@final
class Block(nn.Module):
    """Attention and an MLP, each normed before and added.

    >>> import torch
    >>> block, states = Block(8, heads=2, expansion=2), torch.zeros(3, 5, 8)
    >>> block(states, torch.zeros(3, 7, 8)).shape, block(states).shape
    (torch.Size([3, 5, 8]), torch.Size([3, 5, 8]))
    """

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.back = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(self, states: Tensor, read: Tensor | None = None) -> Tensor:
        """States ``... q d`` that have read ``... m d``; by default one another, both ways."""
        normed = self.before(states)
        queries = rearrange(self.query(normed), "... q (n e) -> ... n q e", n=self.heads)
        given = self.key_value(normed if read is None else read)
        keys, values = rearrange(given, "... m (two n e) -> two ... n m e", two=2, n=self.heads)
        found = scaled_dot_product_attention(queries, keys, values)
        states = states + self.back(rearrange(found, "... n q e -> ... q (n e)"))
        return states + self.mlp(states)
