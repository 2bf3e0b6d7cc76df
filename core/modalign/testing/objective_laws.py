"""Laws of what judges: objectives over scores, and reward heads over states.

b pairs, a responses, r rows, n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from modalign.admission import Entry
from modalign.batch import Targets
from modalign.objectives.base import Loss, Mean, Objective
from modalign.registry import Registry
from modalign.scores import Scores, UnitKind, Units
from modalign.testing.case import Case, case, require

_PAIRS = 3
_TOKENS = 4  #: scored tokens of each response
_WIDTH = 16

Level = Literal["equal", "random", "extreme"]


def objective_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """An objective is pure, finite, honest about its count, and symmetric where its mathematics is."""

    def objective() -> Objective:
        return plugins.objective(entry.qualified)()

    def finite(_: Path) -> None:
        for level in ("equal", "random", "extreme"):
            scores, leaves, targets = _problem(objective(), level)
            loss = objective()(scores, targets)
            require(loss.sum.ndim == 0 and loss.count.ndim == 0, "sum and count must be 0-d", got=loss.sum.shape)
            require(loss.sum.isfinite(), f"the loss must be finite at {level} scores", got=loss.sum.item())
            loss.sum.backward()
            for leaf in leaves:
                require(leaf.grad is not None, "every score of the policy it asks for must have a gradient", got="none")
                require(leaf.grad is not None and leaf.grad.isfinite().all(), f"finite gradients at {level} scores")

    def pure(_: Path) -> None:
        scores, _leaves, targets = _problem(objective(), "random")
        one, two = objective()(scores, targets), objective()(scores, targets)
        require(torch.equal(one.sum, two.sum), "the same scores must give the same loss", got=(one.sum, two.sum))
        for name, mean in one.metrics.items():
            held = mean.sum.requires_grad or mean.count.requires_grad
            require(not held, f"metric {name!r} must be detached", fix="use modalign.objectives.base.weighted")

    def counted(_: Path) -> None:
        scores, _leaves, targets = _problem(objective(), "random")
        found, said = objective()(scores, targets).count, objective().count(targets, scores["policy"].counts)
        require(
            torch.equal(found.double(), said.double()), f"Loss.count must be count(), {said.item()}", got=found.item()
        )

    def additive(_: Path) -> None:
        scores, _leaves, targets = _problem(objective(), "random")
        statistics = objective().statistics(scores, targets)
        whole = objective()(scores, targets, statistics)
        parts = [objective()(*_only(scores, targets, number), statistics) for number in range(_PAIRS)]
        for what in ("sum", "count"):
            total, added = getattr(whole, what), torch.stack([getattr(part, what) for part in parts]).sum()
            close = torch.isclose(total.double(), added.double(), rtol=1e-9)
            require(close, f"the {what} of a batch must be that of its halves added", got=(total.item(), added.item()))

    def weightless(_: Path) -> None:
        scores, _leaves, targets = _problem(objective(), "random")
        nothing = replace(targets, weights=torch.zeros_like(targets.weights))
        loss: Loss = objective()(scores, nothing, objective().statistics(scores, targets))
        require(loss.sum.item() == 0, "comparisons of weight 0 must not count", got=loss.sum.item())

    def swapped(_: Path) -> None:
        scores, _leaves, targets = _problem(objective(), "random")
        turned = replace(targets, pairs=targets.pairs.flip(-1))
        here, there = objective()(scores, targets).metrics, objective()(scores, turned).metrics
        names = [name for name in here if name.rpartition("/")[2] in ("margin", "margins")]
        require(names, "an objective over pairs must report a margin", got=", ".join(here), fix="use pair_metrics")
        for name in names:
            opposite = torch.isclose(here[name].sum, -there[name].sum, rtol=1e-9)
            require(opposite, f"swapping chosen and rejected must negate {name!r}", got=_pair(here[name], there[name]))

    yield case(entry, "loss and gradient are finite, at extreme scores too", finite)
    yield case(entry, "it is a pure function", pure)
    yield case(entry, "it counts what it said it would", counted)
    yield case(entry, "its sum is the sum over parts of the batch", additive)
    yield case(entry, "weight 0 counts nothing", weightless)
    if plugins.objective(entry.qualified).needs.pairing == "pair":
        yield case(entry, "swapping chosen and rejected negates the margin", swapped)


def head_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """A head gives each response its numbers, from what that response's tokens saw."""
    from modalign.testing.doubles import toy_batch, toy_pairs

    batch = toy_batch(toy_pairs(_PAIRS))
    states = torch.randn(*batch.tokens.shape, _WIDTH, generator=torch.Generator().manual_seed(0))  # r n d

    def numbers(_: Path) -> None:
        head = plugins.head(entry.qualified)(_WIDTH)
        found = head(states, batch)
        wanted = (batch.responses, len(head.dimensions))
        require(tuple(found.shape) == wanted, f"expected 'a k' of {wanted}", got=tuple(found.shape))
        require(found.dtype == torch.float32, "its numbers must be float32", got=found.dtype)
        require(found.isfinite().all(), "its numbers must be finite")
        found.square().sum().backward()
        for name, parameter in head.named_parameters():
            alive = parameter.grad is not None and parameter.grad.isfinite().all()
            require(alive, f"{name} must have a finite gradient", got=parameter.grad)

    def padding(_: Path) -> None:
        head = plugins.head(entry.qualified)(_WIDTH)
        filled = states.masked_fill(~batch.layout.real[..., None], 1e4)
        same = torch.equal(head(states, batch), head(filled, batch))
        require(same, "its numbers must not depend on states of padding")

    yield case(entry, "it gives finite numbers of each response", numbers)
    yield case(entry, "it does not read padding", padding)


def _problem(objective: Objective, level: Level) -> tuple[dict[str, Scores], list[Tensor], Targets]:
    """Scores of each role an objective asks for, the policy's leaves, and targets of its pairing."""
    needs = objective.needs
    own = 2 * _PAIRS
    responses = own * (2 if needs.mismatched else 1)
    kind: UnitKind = "token" if "token" in needs.kinds else sorted(needs.kinds)[0]
    leaves: list[Tensor] = []
    scores: dict[str, Scores] = {}
    for number, role in enumerate(needs.roles):
        made = torch.Generator().manual_seed(0 if level == "equal" else number)
        scale = 1e3 if level == "extreme" else 1.0
        values = -scale * torch.rand(responses * _TOKENS, generator=made, dtype=torch.float64) - 0.01
        rewards = torch.randn(responses, 1, generator=made) * scale * (level != "equal")
        if role == "policy":
            leaves += [values.requires_grad_()] if needs.units else []
            leaves += [rewards.requires_grad_()] if needs.heads else []
        scores[role] = Scores(
            units={"d": Units(kind=kind, values=values, segment=torch.arange(responses).repeat_interleave(_TOKENS))},
            response=torch.arange(responses),
            weight=torch.ones(responses, dtype=torch.float64),
            responses=responses,
            rewards=dict.fromkeys(needs.heads, rewards),
        )
    pairs = torch.arange(own).reshape(_PAIRS, 2)  # b 2
    weights = _PAIRS if needs.pairing == "pair" else own
    targets = Targets(
        pairs=pairs if needs.pairing == "pair" else pairs[:0],
        own=torch.arange(own),
        group=torch.arange(own) // 2,
        weights=torch.ones(weights, dtype=torch.float64),
        labels=(torch.arange(own) % 2 == 0).double() if needs.pairing == "label" else None,
        mismatched=torch.arange(own, responses) if needs.mismatched else None,
    )
    return scores, leaves, targets


def _only(scores: Mapping[str, Scores], targets: Targets, number: int) -> tuple[Mapping[str, Scores], Targets]:
    """The targets of one comparison of the batch; scores stay whole, and are read through the targets."""
    mine = targets.group == number
    by_pair = len(targets.pairs) > 0
    return scores, replace(
        targets,
        pairs=targets.pairs[number : number + 1],
        own=targets.own[mine],
        group=targets.group[mine],
        weights=targets.weights[number : number + 1] if by_pair else targets.weights[mine],
        labels=None if targets.labels is None else targets.labels[mine],
        mismatched=None if targets.mismatched is None else targets.mismatched[mine],
    )


def _pair(one: Mean, other: Mean) -> str:
    return f"{one.sum.item():.6g} and {other.sum.item():.6g}"
