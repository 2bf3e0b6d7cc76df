"""Linear layers with GELU between them, between an encoder and a backbone.

m embeddings, d width of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import final

from pydantic import PositiveInt
from torch import Tensor, nn

from modalign.connectors.options import ConnectorOptions, check_embeddings, check_widths, checked, seeded
from modalign.roles import Connector


@final
class MLPOptions(ConnectorOptions):
    """How an MLP connector looks."""

    depth: PositiveInt = 2
    """Linear layers; 2 is LLaVA-1.5's `mlp2x_gelu`."""


@final
class MLPConnector(Connector):
    """Each embedding by linear layers of the backbone's width, GELU between them.

    LLaVA-1.5, https://arxiv.org/abs/2310.03744, takes two.

    width, out: of the embeddings and of the states (d).
    options: of `MLPOptions`.

    >>> import torch
    >>> MLPConnector.make(8, 4, depth=3)(torch.zeros(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(self, width: int, out: int, **options: object) -> None:
        super().__init__()
        chosen = checked(MLPOptions, options)
        check_widths(width, out)
        self.width, self.out = width, out
        self.settings: Mapping[str, object] = MappingProxyType(chosen.model_dump())
        with seeded(chosen.seed):
            layers: list[nn.Module] = [nn.Linear(width, out)]
            for _ in range(chosen.depth - 1):
                layers += [nn.GELU(), nn.Linear(out, out)]
            self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        check_embeddings(embeddings, self.width)
        return self.layers(embeddings)
