"""One linear layer between an encoder and a backbone.

m embeddings, d width of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import final

from torch import Tensor, nn

from modalign.connectors.options import ConnectorOptions, check_embeddings, check_widths, checked, seeded
from modalign.roles import Connector


@final
class LinearOptions(ConnectorOptions):
    """How a linear connector looks."""

    bias: bool = True
    """Whether to add one."""


@final
class LinearConnector(Connector):
    """Each embedding by one matrix, as in the first LLaVA, https://arxiv.org/abs/2304.08485.

    width, out: of the embeddings and of the states (d).
    options: of `LinearOptions`.

    >>> import torch
    >>> LinearConnector.make(8, 4)(torch.zeros(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(self, width: int, out: int, **options: object) -> None:
        super().__init__()
        chosen = checked(LinearOptions, options)
        check_widths(width, out)
        self.width, self.out = width, out
        self.settings: Mapping[str, object] = MappingProxyType(chosen.model_dump())
        with seeded(chosen.seed):
            self.project = nn.Linear(width, out, bias=chosen.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        check_embeddings(embeddings, self.width)
        return self.project(embeddings)
