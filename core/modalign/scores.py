"""What decoders answer: units, and the log-likelihood of each response they add up to.

u units, s segments, r responses, k numbers of a reward head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, final

import torch
from torch import Tensor

UnitKind = Literal["token", "draw", "step"]

NORMALISED: frozenset[UnitKind] = frozenset({"token"})  #: kinds whose sum is a probability of the response
ALL_KINDS: frozenset[UnitKind] = frozenset({"token", "draw", "step"})


@final
@dataclass(frozen=True, kw_only=True)
class Units:
    """One decoder's answer: a log-likelihood per unit.

    kind: what a unit is; a segment sums its tokens and steps, and takes the mean of its draws.
    values: ``u`` log-likelihoods.
    segment: ``u`` the segment each unit belongs to, an index into `Batch.segments`.
    dims: ``u`` dimensions each unit sums over: 1 for a token.
    """

    kind: UnitKind
    values: Tensor
    segment: Tensor
    dims: Tensor | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Scores:
    """The units of a batch under one role, and what its reward heads said.

    units: by decoder.
    response: ``s`` the response of each segment.
    weight: ``s`` the weight of each segment in its response's log-likelihood; 0 is context only.
    responses: how many responses the batch has (r).
    rewards: by head, ``r k``.
    """

    units: Mapping[str, Units]
    response: Tensor
    weight: Tensor
    responses: int
    rewards: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def kinds(self) -> frozenset[UnitKind]:
        """The kinds of unit in here."""
        return frozenset(units.kind for units in self.units.values() if units.values.numel())

    @property
    def segments(self) -> Tensor:
        """Log-likelihood of each segment, ``s`` in float64, so that long sums keep their last digits."""
        total = torch.zeros(self.response.shape[0], dtype=torch.float64, device=self.response.device)
        for units in self.units.values():
            part = torch.zeros_like(total).index_add(0, units.segment, units.values.double())
            if units.kind == "draw":
                ones = torch.ones_like(units.segment, dtype=torch.float64)
                part = part / torch.zeros_like(total).index_add(0, units.segment, ones).clamp(min=1)
            total = total + part
        return total

    @property
    def logps(self) -> Tensor:
        """Log-likelihood of each response: the weighted sum over its segments, ``r`` in float64."""
        return self._by_response(self.segments * self.weight)

    @property
    def counts(self) -> Tensor:
        """Tokens of each response that are scored, ``r`` in float64; segments of weight 0 do not count."""
        count = torch.zeros(self.response.shape[0], dtype=torch.float64, device=self.response.device)
        for units in self.units.values():
            if units.kind == "token":
                count = count.index_add(0, units.segment, torch.ones_like(units.values, dtype=torch.float64))
        return self._by_response(count * (self.weight != 0))

    @property
    def drawn(self) -> tuple[Tensor, Tensor]:
        """Squared errors of each response's drawn segments, and how many dimensions they are over: ``r`` in float64.

        A segment's error is the mean over its draws; segments of weight 0 do not count; both are 0 where all are.
        """
        errors = torch.zeros(self.response.shape[0], dtype=torch.float64, device=self.response.device)
        dims = torch.zeros_like(errors)
        for units in self.units.values():
            if units.kind == "draw" and units.dims is not None:
                ones = torch.ones_like(units.segment, dtype=torch.float64)
                count = torch.zeros_like(errors).index_add(0, units.segment, ones).clamp(min=1)
                squares = -2 * units.values.double()  # u
                errors = errors + torch.zeros_like(errors).index_add(0, units.segment, squares) / count
                dims = dims + torch.zeros_like(errors).index_add(0, units.segment, units.dims.double()) / count
        there = self.weight != 0
        return self._by_response(errors * there), self._by_response(dims * there)

    @property
    def per_unit(self) -> Tensor:
        """What imitating each response costs, whatever its size: ``r`` in float64.

        The mean negative log-probability of its tokens, and the mean squared error per dimension of what is drawn.
        """
        errors, dims = self.drawn
        tokens = torch.zeros(self.response.shape[0], dtype=torch.float64, device=self.response.device)
        for units in self.units.values():
            if units.kind == "token":
                tokens = tokens.index_add(0, units.segment, units.values.double())
        spoken = self._by_response(tokens * (self.weight != 0))
        return errors / dims.clamp(min=1) - spoken / self.counts.clamp(min=1)

    def detach(self) -> Scores:
        """The same numbers without their graph."""
        return replace(
            self,
            units={name: replace(units, values=units.values.detach()) for name, units in self.units.items()},
            rewards={name: value.detach() for name, value in self.rewards.items()},
        )

    def _by_response(self, values: Tensor) -> Tensor:
        start = torch.zeros(self.responses, dtype=torch.float64, device=values.device)
        return start.index_add(0, self.response, values.double())
