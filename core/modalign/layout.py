"""The tree of spans: a trunk computed once, and the branches that continue it, in rows of tokens.

A span is a run of tokens with one parent. It attends to itself, causally, and to all of each ancestor. One response to
a prompt is a single span; several are a trunk and its branches; the query positions that condition a generator are a
leaf that later tokens do not see.

r rows, n tokens of the widest row, s spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive tokens of one row that share a parent.

    row: the row it lies in.
    start, stop: its tokens, a half-open range of the row.
    parent: index of the span it continues, in the same row and before it; None for a root.
    offset: how many tokens its path holds before it: the position of its first token in the sequence it is part of.
    """

    row: int
    start: int
    stop: int
    parent: int | None = None
    offset: int = 0

    def __len__(self) -> int:
        return self.stop - self.start


@final
@dataclass(frozen=True)
class Layout:
    """Where every span of a batch lies, and what it sees.

    >>> trunk, left, right = Span(row=0, start=0, stop=2), *(
    ...     Span(row=0, start=a, stop=b, parent=0, offset=2) for a, b in ((2, 4), (4, 5)))
    >>> layout = Layout((trunk, left, right), rows=1, width=5)
    >>> layout.index.tolist()
    [[0, 1, 2, 3, 2]]
    >>> layout.mask()[0].int().tolist()[-1]
    [1, 1, 0, 0, 1]
    """

    spans: tuple[Span, ...]
    rows: int
    width: int

    def __post_init__(self) -> None:
        for number, span in enumerate(self.spans):
            if not (0 <= span.row < self.rows and 0 <= span.start <= span.stop <= self.width):
                msg = f"span {number} {span} does not fit {self.rows} row(s) of {self.width} tokens"
                raise ValueError(msg)
            if span.parent is None:
                continue
            parent = self.spans[span.parent] if span.parent < number else None
            if parent is None or parent.row != span.row or parent.stop > span.start:
                msg = f"span {number} {span} must follow its parent in the same row"
                raise ValueError(msg)
            if span.offset != parent.offset + len(parent):
                msg = f"span {number} starts at {span.offset}, but its parent ends at {parent.offset + len(parent)}"
                raise ValueError(msg)

    @property
    def plain(self) -> bool:
        """Whether every row is one sequence, so that an ordinary causal mask is right."""
        return len(self.spans) == len({span.row for span in self.spans})

    def path(self, number: int) -> tuple[int, ...]:
        """The spans that span ``number`` sees whole, oldest first, and itself last."""
        found = [number]
        while (parent := self.spans[found[-1]].parent) is not None:
            found.append(parent)
        return tuple(reversed(found))

    def tokens(self, number: int) -> Tensor:
        """The row's tokens on the path to the end of span ``number``, ``long``, in reading order."""
        ranges = [self.spans[member] for member in self.path(number)]
        return torch.cat([torch.arange(span.start, span.stop) for span in ranges])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence in the batch."""
        return max((span.offset + len(span) for span in self.spans), default=0)

    @cached_property
    def node(self) -> Tensor:
        """The span of each token, ``r n``; -1 where a row is padded."""
        node = torch.full((self.rows, self.width), -1)
        for number, span in enumerate(self.spans):
            node[span.row, span.start : span.stop] = number
        return node

    @cached_property
    def index(self) -> Tensor:
        """Each token's place in the sequence it is part of, ``r n``; 0 where a row is padded."""
        index = torch.zeros(self.rows, self.width, dtype=torch.long)
        for span in self.spans:
            index[span.row, span.start : span.stop] = torch.arange(span.offset, span.offset + len(span))
        return index

    @cached_property
    def real(self) -> Tensor:
        """Which tokens are no padding, ``r n`` of bool."""
        return self.node >= 0

    def mask(self, own: Tensor | None = None) -> Tensor:
        """What each token attends to, ``r n n`` of bool: query by key. A padding token sees only itself.

        own: what a plain sequence would attend to, ``l l`` or ``r l l`` of bool with l >= `longest`: a window, or
            whatever else a family's mask says beyond causality. Causal where it is None.
        """
        sees = torch.zeros(len(self.spans) + 1, len(self.spans) + 1, dtype=torch.bool)
        for number in range(len(self.spans)):
            sees[number, list(self.path(number))] = True
        node, index = self.node, self.index
        mask = sees[node[:, :, None], node[:, None, :]]  # r n n; node -1 is the last row and column: all False
        if own is None:
            mask &= index[:, :, None] >= index[:, None, :]
        elif own.ndim == 2:
            mask &= own.cpu()[index[:, :, None], index[:, None, :]]
        else:
            rows = torch.arange(self.rows)[:, None, None]
            mask &= own.cpu()[rows, index[:, :, None], index[:, None, :]]
        return mask | torch.eye(self.width, dtype=torch.bool)


def fork(row: int, trunk: int, branches: Sequence[int], *, first: int) -> tuple[Span, ...]:
    """The spans of one row that holds a trunk and its branches side by side.

    trunk: tokens of the trunk; 0 makes the branches roots.
    branches: tokens of each branch.
    first: the number the trunk's span will have in its layout.
    """
    spans: list[Span] = []
    parent = None
    if trunk:
        spans.append(Span(row=row, start=0, stop=trunk))
        parent = first
    start = trunk
    for length in branches:
        spans.append(Span(row=row, start=start, stop=start + length, parent=parent, offset=trunk))
        start += length
    return tuple(spans)
