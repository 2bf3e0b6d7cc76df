"""Which seconds of a medium are scored, and which of its latents they are.

t latents along time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, final

import torch
from torch import Tensor

from modalign.errors import DataError

#: Start and end of each span of time, in seconds from where the medium begins.
Spans: TypeAlias = tuple[tuple[float, float], ...]

FIELD = "spans"


@final
@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When each latent of a medium is, one after the other from 0.

    axis: of latents without a batch axis, the one that is time.
    each: seconds that a latent stands for.
    first: seconds of the first one; by default as many.
    again: how often the first one stands before itself once more, of the same time.

    A latent counts by the share of its own seconds that lies in spans, so that spans that complement one another add up
    to the whole. Spans may overlap, which counts once.

    >>> line = Timeline(axis=0, each=0.5)
    >>> line.shares(((0.0, 0.75),), 3)
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """

    axis: int
    each: float
    first: float | None = None
    again: int = 0

    def times(self, count: int) -> list[tuple[float, float]]:
        """Start and end of each of ``count`` latents, in seconds."""
        first = self.each if self.first is None else self.first
        later = [first + number * self.each for number in range(count - self.again)]
        return [(0.0, first)] * (1 + self.again) + list(pairwise(later))

    def shares(self, spans: Spans, count: int) -> Tensor:
        """How much of each of ``count`` latents is scored, ``t`` from 0 to 1; a `DataError` where none is at all."""
        times, merged = self.times(count), union(spans)
        found = [
            sum(max(0.0, min(end, stop) - max(start, begin)) for start, end in merged) / (stop - begin)
            for begin, stop in times
        ]
        if not any(found):
            raise nothing_scored(spans, times[-1][1])
        return torch.tensor([1.0 if one > 1 - 1e-9 else one for one in found], dtype=torch.float64)

    def weights(self, spans: Spans, shape: Sequence[int]) -> Tensor:
        """The same, to be multiplied with latents of this shape: 1 along every other axis."""
        sizes = [1] * len(shape)
        sizes[self.axis] = shape[self.axis]
        return self.shares(spans, shape[self.axis]).reshape(sizes)


def union(spans: Spans) -> Spans:
    """The same seconds in order, without overlap.

    >>> union(((2.0, 3.0), (0.0, 1.0), (0.5, 1.5)))
    ((0.0, 1.5), (2.0, 3.0))
    """
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def nothing_scored(spans: Spans, seconds: float) -> DataError:
    """The error where no span meets what a model makes of a medium."""
    return DataError(
        "no second of this medium is scored",
        field=FIELD,
        got=f"spans {written(spans)}, and {seconds:.4g} seconds that the model is given",
        fix="correct the spans, which are in seconds from where the medium begins, or leave them out",
    )


def no_time(modality: str) -> DataError:
    """The error of spans of a medium without time."""
    return DataError(
        f"{modality} has no time of which spans are scored",
        field=FIELD,
        got=f"a model that makes {modality}",
        fix="leave them out",
    )


def written(spans: Spans) -> str:
    """Spans for messages."""
    return ", ".join(f"{start:g} to {end:g}" for start, end in spans)
