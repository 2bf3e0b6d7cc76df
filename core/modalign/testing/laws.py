"""Laws that every objective keeps, over scores alone: `check_objective` runs them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.testing import assert_close

from modalign.errors import ModelError
from modalign.objectives.base import Loss, Objective
from modalign.scores import ALL_KINDS, UnitKind
from modalign.testing.rows import Row, extreme_rows, lay, random_row


def check_objective(objective: Objective) -> None:
    """Raise an `AssertionError` that says which of the `LAWS` an objective breaks.

    >>> from modalign.objectives import DPO
    >>> check_objective(DPO())
    """
    for law in LAWS.values():
        law(objective)


def the_loss_is_a_number_with_a_gradient(objective: Objective) -> None:
    """Sum and count are 0-d, and the sum can be differentiated."""
    for kind, rows in _problems(objective):
        loss = _loss(objective, rows, kind)
        assert loss.sum.ndim == loss.count.ndim == 0, f"sum and count are not 0-d: {loss.sum.shape}, {loss.count.shape}"
        assert loss.sum.requires_grad, "the loss has no gradient"


def same_scores_give_the_same_loss(objective: Objective) -> None:
    """An objective is a pure function."""
    for kind, rows in _problems(objective):
        once, again = _loss(objective, rows, kind), _loss(objective, rows, kind)
        assert once.sum.equal(again.sum), f"the same scores give another loss: {once.sum.item()} and {again.sum.item()}"


def count_is_known(objective: Objective) -> None:
    """`Objective.count` is `Loss.count`, before any score is known."""
    for kind, rows in _problems(objective):
        scores, targets = lay(objective.needs, rows, kind=kind)
        before = objective.count(targets, scores["policy"].counts)
        _equal(objective(scores, targets).count, before, "count() is not the count of the loss")


def parts_add_up(objective: Objective) -> None:
    """A batch is the sum of its parts, given the statistics of the whole, and an empty one is 0."""
    for kind, rows in _problems(objective):
        whole = _loss(objective, rows, kind)
        statistics = objective.statistics(*lay(objective.needs, rows, kind=kind))
        assert all(not mean.sum.requires_grad for mean in statistics.values()), "statistics carry a graph"
        parts = [objective(*lay(objective.needs, part, kind=kind), statistics) for part in (rows[:2], rows[2:], [])]
        for name in ("sum", "count"):
            total = torch.stack([getattr(part, name) for part in parts]).sum()
            _equal(total, getattr(whole, name), f"the {name} of a batch is not the sum over its parts")
        assert parts[-1].sum.item() == parts[-1].count.item() == 0, "an empty batch has a loss"


def metrics_can_be_added_up(objective: Objective) -> None:
    """Metrics are finite, detached, and have the same names in every batch."""
    for kind, rows in _problems(objective):
        names = _loss(objective, rows, kind).metrics.keys()
        for part in (rows, rows[:1], rows[1:2], []):
            metrics = _loss(objective, part, kind).metrics
            assert metrics.keys() == names, "names of metrics depend on the batch"
            for name, mean in metrics.items():
                both = torch.stack([mean.sum, mean.count.to(mean.sum.dtype)])
                assert not both.requires_grad, f"metric {name} carries a graph"
                assert both.isfinite().all(), f"metric {name} is not finite"


def weights_multiply(objective: Objective) -> None:
    """The weight of a comparison multiplies its loss and its count."""
    for kind, rows in _problems(objective):
        statistics = objective.statistics(*lay(objective.needs, rows, kind=kind))
        for row in rows:
            once, thrice = (
                objective(*lay(objective.needs, [replace(row, weight=weight)], kind=kind), statistics)
                for weight in (1.0, 3.0)
            )
            _equal(thrice.sum, 3 * once.sum, "a weight does not multiply the loss of its comparison")
            _equal(thrice.count, 3 * once.count, "a weight does not multiply the count of its comparison")


def weight_zero_is_nothing(objective: Objective) -> None:
    """What has weight 0 changes neither loss nor metrics and gets no gradient, even where it is NaN."""
    for kind, rows in _problems(objective):
        whole = _loss(objective, rows, kind)
        nan = [torch.full_like(leaf, torch.nan).requires_grad_() for leaf in rows[0].leaves]
        filler = replace(rows[0].with_leaves(nan), weight=0.0)
        filled = _loss(objective, [*rows, filler], kind)
        _equal(filled.sum, whole.sum, "a comparison of weight 0 changes the loss")
        _equal(filled.count, whole.count, "a comparison of weight 0 changes the count")
        for name, mean in filled.metrics.items():
            _equal(mean.sum, whole.metrics[name].sum, f"a comparison of weight 0 changes {name}")
        for gradient in _gradients(filled, filler):
            assert (gradient == 0).all(), "a comparison of weight 0 has a gradient"


def extremes_are_finite(objective: Objective) -> None:
    """Scores as far out as training gets have a finite loss and finite gradients."""
    for kind, _ in _problems(objective):
        rows = extreme_rows(objective.needs)
        loss = _loss(objective, rows, kind)
        assert loss.sum.isfinite(), "the loss of extreme scores is not finite"
        for row in rows:
            for gradient in _gradients(loss, row):
                assert gradient.isfinite().all(), f"the gradient at {row} is not finite"


def swap_negates_the_margin(objective: Objective) -> None:
    """A pair turned round has the opposite margin."""
    if objective.needs.pairing != "pair":
        return
    name = "margin" if objective.needs.heads else "rewards/margins"
    for kind, rows in _problems(objective):
        straight, turned = (_loss(objective, some, kind).metrics for some in (rows, [row.swap() for row in rows]))
        assert name in straight, f"an objective over pairs reports {name}"
        opposite = -straight[name].sum
        _equal(turned[name].sum, opposite, "swapping chosen and rejected does not negate the margin")


def kinds_outside_needs_are_refused(objective: Objective) -> None:
    """`refuse` raises for a kind of unit whose mathematics is not the objective's."""
    for kind in sorted(ALL_KINDS - objective.needs.kinds):
        assert not _accepts(objective, kind), f"{kind} is outside needs.kinds, and refuse() took it"


LAWS: Mapping[str, Callable[[Objective], None]] = MappingProxyType(
    {
        "the loss is a number with a gradient": the_loss_is_a_number_with_a_gradient,
        "the same scores give the same loss": same_scores_give_the_same_loss,
        "the count is known before the forward pass": count_is_known,
        "a batch is the sum of its parts": parts_add_up,
        "metrics can be added up over ranks": metrics_can_be_added_up,
        "a weight multiplies its comparison": weights_multiply,
        "what has weight 0 does not matter": weight_zero_is_nothing,
        "extreme scores have finite gradients": extremes_are_finite,
        "swapping chosen and rejected negates the margin": swap_negates_the_margin,
        "kinds of unit outside its needs are refused": kinds_outside_needs_are_refused,
    }
)  #: every law, by what it says


def _problems(objective: Objective) -> Iterator[tuple[UnitKind, list[Row]]]:
    """Comparisons of every kind of unit that the objective takes: a setting may narrow what its class does."""
    for kind in sorted(objective.needs.kinds):
        if _accepts(objective, kind):
            yield kind, [random_row(objective.needs, seed=seed) for seed in range(6)]


def _accepts(objective: Objective, kind: UnitKind) -> bool:
    try:
        objective.refuse(frozenset({kind}))
    except ModelError:
        return False
    return True


def _loss(objective: Objective, rows: Sequence[Row], kind: UnitKind) -> Loss:
    return objective(*lay(objective.needs, rows, kind=kind))


def _equal(found: Tensor, wanted: Tensor, what: str) -> None:
    assert_close(found, wanted, msg=f"{what}: {found.tolist()} and {wanted.tolist()}")


def _gradients(loss: Loss, row: Row) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum, row.leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
