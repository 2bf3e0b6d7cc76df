"""Batches in which people judged some things and not others, for objectives that train reward heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.objectives import Needs
from modalign.scores import Scores, UnitKind
from modalign.testing import laws
from modalign.testing.laws import Row

Lay = Callable[..., tuple[dict[str, Scores], Targets]]

PREFERENCES = (1.0, 0.0, 0.5, math.nan, 0.7)  #: first better, second better, a tie, nobody said, a probability
FLAGS = (1.0, 0.0, math.nan)

_plain = laws.lay


def numbers(needs: Needs, rewards: Tensor) -> Tensor:
    """What the head of an objective would give where a plain one gives ``r 1``: ``r m``."""
    spec = needs.spec(needs.heads[0])
    each = rewards * torch.linspace(1.0, 0.4, len(spec.dimensions), dtype=rewards.dtype)  # r k
    if spec.type == "gaussian":
        return torch.cat([each, each.clamp(-10, 10)], dim=-1)
    if spec.type == "ordinal":
        cuts = torch.tensor(spec.options["cuts"], dtype=rewards.dtype)
        return (each[..., None] - cuts).flatten(1)
    return each


def lay(needs: Needs, rows: Sequence[Row], *, kind: UnitKind = "token") -> tuple[dict[str, Scores], Targets]:
    """As `laws.lay`, with as many numbers as the head gives and with judgements that each row's tokens decide.

    What is said of a pair is the same however it is turned.
    """
    scores, targets = _plain(needs, rows, kind=kind)
    if not needs.heads:
        return scores, targets
    spec = needs.spec(needs.heads[0])
    policy = scores["policy"]
    policy = replace(policy, rewards={name: numbers(needs, one) for name, one in policy.rewards.items()})
    preferences, rewards = {}, {}
    for at, name in enumerate(spec.dimensions):
        keys = [sum(row.tokens) + 3 * at for row in rows]
        preferences[name] = torch.tensor([PREFERENCES[key % 5] for key in keys], dtype=torch.float64)
        flags = [FLAGS[(count + at) % 3] for row in rows for count in row.tokens[: 2 if needs.pairing == "pair" else 1]]
        rewards[name] = torch.tensor(flags, dtype=torch.float64)
        rewards["unsafe"] = rewards[name]
    return {"policy": policy}, replace(
        targets, preferences=preferences if needs.pairing == "pair" else {}, rewards=rewards
    )


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Lays judgements out, in `modalign.testing.laws` too."""
    monkeypatch.setattr(laws, "lay", lay)
    return lay
