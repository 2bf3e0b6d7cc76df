"""Comparisons as objectives see them: scores and targets laid out from plain numbers, plausible or extreme.

b comparisons, a responses the loss is about, r responses of a batch (with mismatched ones).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.decoders.backprop import MADE
from modalign.frozen import empty
from modalign.objectives.base import Needs
from modalign.scores import ALL_KINDS, Scores, UnitKind, Units
from modalign.testing.judgements import numbers, said

EXTREME = 1e4  #: a log-likelihood, or a reward, as far out as training gets


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison as an objective sees it.

    logps: by role, ``r`` log-likelihoods of its own responses, then of the mismatched ones.
    rewards: ``r`` numbers of the heads, or of what was made.
    tokens: of each response.
    label: whether a single response is desirable; a pair's are (desirable, undesirable).
    margin, weight: of the comparison.
    judged: whether people said more of it than which response is better; what they said its tokens decide.
    """

    logps: Mapping[str, Tensor] = field(default_factory=empty)
    rewards: Tensor | None = None
    tokens: tuple[int, ...] = (1, 1)
    label: bool = True
    margin: float | None = None
    weight: float = 1.0
    judged: bool = False

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Everything a gradient can reach."""
        return (*self.logps.values(), *(() if self.rewards is None else (self.rewards,)))

    def with_leaves(self, leaves: Sequence[Tensor]) -> Row:
        """The same comparison with other numbers, in the order of `leaves`."""
        logps = dict(zip(self.logps, leaves, strict=False))
        return replace(self, logps=logps, rewards=None if self.rewards is None else leaves[-1])

    def swap(self) -> Row:
        """The same pair with the preference turned round."""
        turn = torch.tensor([1, 0])
        return replace(
            self,
            logps={role: logps[turn] for role, logps in self.logps.items()},
            rewards=None if self.rewards is None else self.rewards[turn],
            tokens=self.tokens[::-1],
            margin=None if self.margin is None else -self.margin,
        )


def scores_of(logps: Tensor, tokens: Sequence[int], *, kind: UnitKind = "token") -> Scores:
    """Scores whose responses have the given log-likelihoods, ``r``, each spread evenly over its units."""
    segment = torch.repeat_interleave(torch.arange(len(tokens)), torch.tensor(tokens, dtype=torch.long))
    # a response of draws is the mean of its units, so each has the whole log-likelihood
    share = logps if kind == "draw" else logps / torch.tensor(tokens).clamp(min=1)
    return Scores(
        units={"any": Units(kind=kind, values=share[segment], segment=segment)},
        response=torch.arange(len(tokens)),
        weight=torch.ones(len(tokens), dtype=torch.float64),
        responses=len(tokens),
    )


def lay(needs: Needs, rows: Sequence[Row], *, kind: UnitKind = "token") -> tuple[dict[str, Scores], Targets]:
    """Scores by role and the targets of a batch of comparisons, as the assembler would lay them out.

    Each head gives as many numbers as its spec says, of which those of the first dimension are the row's.
    """
    own_count = 2 if needs.pairing == "pair" else 1
    total = own_count * (2 if needs.mismatched else 1)  # of each comparison
    first = total * torch.arange(len(rows))[:, None]  # b 1
    own = (first + torch.arange(own_count)).flatten()
    tokens = [count for row in rows for count in row.tokens[:total]]
    weights = torch.tensor([row.weight for row in rows], dtype=torch.float64)
    targets = Targets(
        pairs=own.reshape(-1, 2) if needs.pairing == "pair" else torch.zeros(0, 2, dtype=torch.long),
        own=own,
        weights=weights,
        group=torch.arange(len(rows)).repeat_interleave(own_count),
        margins=torch.tensor([row.margin or 0.0 for row in rows], dtype=torch.float64)
        if any(row.margin is not None for row in rows)
        else None,
        labels=torch.tensor([row.label for row in rows], dtype=torch.float64) if needs.pairing == "label" else None,
        mismatched=(first + torch.arange(own_count, total)).flatten() if needs.mismatched else None,
        **said(needs, [row.tokens[:own_count] if row.judged else None for row in rows]),
    )
    none = torch.zeros(0, dtype=torch.float64)
    scores = {}
    for role in needs.roles:
        logps = torch.cat([row.logps[role] for row in rows]) if rows and needs.units else none
        scored = scores_of(logps, tokens if needs.units else (), kind=kind)
        rewards = [row.rewards for row in rows if row.rewards is not None]
        own_rewards = torch.cat(rewards)[:, None] if rewards else none[:, None]  # r 1
        heads = {name: numbers(needs.spec(name), own_rewards) for name in needs.heads}
        heads |= {MADE: own_rewards} if needs.pairing == "prompt" else {}
        scores[role] = replace(scored, responses=len(tokens), rewards=heads)
    return scores, targets


def random_row(needs: Needs, *, seed: int) -> Row:
    """A comparison of plausible numbers, whose leaves take gradients."""
    own = 2 if needs.pairing == "pair" else 1
    total = own * (2 if needs.mismatched else 1)
    noise = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(total, generator=noise, dtype=torch.float64)

    return Row(
        logps={role: (-5 * (draw() - 0.5).abs()).requires_grad_() for role in needs.roles} if needs.units else {},
        rewards=draw().requires_grad_() if needs.heads or needs.pairing == "prompt" else None,
        tokens=tuple(int(count) for count in torch.randint(1, 7, (total,), generator=noise)),
        label=seed % 2 == 0,
        weight=0.5 + seed % 3,
        judged=bool(needs.heads or needs.judgements.scores),
    )


def extreme_rows(needs: Needs) -> list[Row]:
    """Comparisons of numbers as far out as training gets, in every combination over two responses."""
    ends = (-EXTREME, -1e-12, 0.0) if needs.kinds != ALL_KINDS else (-EXTREME, 0.0, EXTREME)
    rows: list[Row] = []
    for seed, (one, other) in enumerate((one, other) for one in ends for other in ends):
        plain = random_row(needs, seed=seed)
        # the reference at the other end, so that log-ratios are the largest there are
        ends_of = {role: (one, other) if role == "policy" else (other, one) for role in plain.logps}
        logps = {role: _far(old, *ends_of[role]) for role, old in plain.logps.items()}
        rewards = None if plain.rewards is None else _far(plain.rewards, one, other)
        rows.append(replace(plain, logps=logps, rewards=rewards))
    return rows


def _far(like: Tensor, one: float, other: float) -> Tensor:
    return torch.tensor([one, other] * 2, dtype=torch.float64)[: len(like)].requires_grad_()
