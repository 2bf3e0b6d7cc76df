"""Adapters of several parts of a model, switched off and on as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import final

from torch import nn

from modalign.roles import Adapters


@final
class JoinedAdapters(Adapters):
    """The adapters of several parts.

    every: of each part.
    """

    def __init__(self, every: Sequence[Adapters]) -> None:
        self.every = tuple(every)

    @contextmanager
    def off(self) -> Iterator[None]:
        with ExitStack() as stack:
            for one in self.every:
                stack.enter_context(one.off())
            yield

    def parameters(self) -> Iterator[nn.Parameter]:
        for one in self.every:
            yield from one.parameters()
