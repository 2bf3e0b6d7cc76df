"""KTO by its closed forms, and the fault of a peer that it does not repeat."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import ShapeError
from modalign.objectives import KTO, Loss, Mean
from modalign.testing.rows import Row, lay


def row(logratio: float, *, label: bool, stranger: float = 0.0, weight: float = 1.0) -> Row:
    """One response with this log-ratio, beside a mismatched one with the log-ratio ``stranger``."""
    reference = torch.tensor([-7.0, -3.0], dtype=torch.float64)
    policy = (reference + torch.tensor([logratio, stranger], dtype=torch.float64)).requires_grad_()
    return Row(logps={"policy": policy, "reference": reference}, label=label, weight=weight)


def of(objective: KTO, *rows: Row) -> Loss:
    return objective(*lay(objective.needs, rows))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_equal_log_ratios_give_one_half(label: bool, beta: float) -> None:
    assert of(KTO(beta=beta), row(0.0, label=label)).mean.item() == 0.5  # 1 - sigmoid(0)
    # and where the response moved as far as what is usual: z0 = 2
    assert of(KTO(beta=beta), row(2.0, label=label, stranger=2.0)).mean.item() == 0.5


@given(st.floats(-60, 60), st.floats(-20, 20), st.booleans())
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(logratio: float, stranger: float, label: bool) -> None:
    z0 = max(stranger, 0)
    value = sigmoid(0.1 * (logratio - z0) if label else 0.1 * (z0 - logratio))
    loss = of(KTO(beta=0.1), row(logratio, label=label, stranger=stranger))
    assert loss.sum.item() == pytest.approx(1 - value, rel=1e-9, abs=1e-12)


@given(st.floats(-300, 300), st.floats(0.5, 100), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_the_loss_rises_as_the_reward_of_an_undesirable_response_rises(at: float, step: float, stranger: float) -> None:
    # align-anything subtracts this term, so its loss falls, and training pushes rejected responses up
    low, high = (of(KTO(), row(value, label=False, stranger=stranger)).sum for value in (at, at + step))
    assert high > low


@given(st.floats(-300, 300), st.floats(0.5, 100), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_the_loss_falls_as_the_reward_of_a_desirable_response_rises(at: float, step: float, stranger: float) -> None:
    low, high = (of(KTO(), row(value, label=True, stranger=stranger)).sum for value in (at, at + step))
    assert high < low


def test_the_loss_of_a_pair_rises_from_a_rejected_reward_of_minus_five_to_plus_five() -> None:
    # chosen reward 1.5, z0 = 0: 1 - s(1.5) = 0.182; the rejected term goes from s(-5) = 0.007 to s(5) = 0.993
    def loss(reward: float) -> float:
        return of(KTO(beta=1.0), row(1.5, label=True), row(reward, label=False)).sum.item()

    assert loss(-5) == pytest.approx(0.1824 + 0.0067, abs=1e-4)
    assert loss(5) == pytest.approx(0.1824 + 0.9933, abs=1e-4)


def test_limits_are_nothing_and_lambda() -> None:
    objective = KTO(desirable_weight=2.0, undesirable_weight=3.0)
    assert of(objective, row(1e4, label=True)).sum.item() == pytest.approx(0, abs=1e-12)
    assert of(objective, row(-1e4, label=True)).sum.item() == pytest.approx(2)
    assert of(objective, row(1e4, label=False)).sum.item() == pytest.approx(3)
    assert of(objective, row(-1e4, label=False)).sum.item() == pytest.approx(0, abs=1e-12)


def test_lambdas_weigh_terms_and_not_the_count() -> None:
    loss = of(KTO(desirable_weight=2.0, undesirable_weight=0.5), row(0.0, label=True), row(0.0, label=False))
    assert loss.sum.item() == 1.25  # (2 + 0.5) / 2
    assert loss.count.item() == 2


def test_z0_is_the_mean_over_the_batch_at_least_zero_and_has_no_gradient() -> None:
    rows = [row(0.0, label=True, stranger=3.0), row(0.0, label=False, stranger=-1.0)]
    loss = of(KTO(), *rows)
    assert loss.metrics["kl"].sum.item() == 1.0  # (3 - 1) / 2
    loss.sum.backward()
    gradients = [one.logps["policy"].grad for one in rows]
    assert all(gradient is not None and gradient[1] == 0 for gradient in gradients)
    assert of(KTO(), row(0.0, label=True, stranger=-4.0)).metrics["kl"].sum.item() == 0


def test_z0_of_weight_zero_does_not_count() -> None:
    rows = [row(0.0, label=True, stranger=3.0), row(0.0, label=True, stranger=100.0, weight=0.0)]
    assert of(KTO(), *rows).metrics["kl"].sum.item() == 3.0


def test_statistics_of_ranks_add_up_before_the_clamp() -> None:
    # one rank's mean is below zero: clamped before the sum, z0 would be 2 / 2 = 1, not 0
    objective = KTO()
    batches = [lay(objective.needs, [row(1.0, label=True, stranger=value)]) for value in (2.0, -2.0)]
    found = [objective.statistics(*batch)["kl"] for batch in batches]
    together = {"kl": Mean(sum=found[0].sum + found[1].sum, count=found[0].count + found[1].count)}
    losses = [objective(*batch, together) for batch in batches]
    assert [loss.metrics["kl"].sum.item() for loss in losses] == [0.0, 0.0]
    # and with the statistics of all ranks, each rank's part adds up to the whole
    whole = of(objective, *(row(1.0, label=True, stranger=value) for value in (2.0, -2.0)))
    assert sum(loss.sum.item() for loss in losses) == pytest.approx(whole.sum.item(), rel=1e-14)


def test_metrics_tell_desirable_from_undesirable() -> None:
    rows = [row(4.0, label=True), row(2.0, label=True), row(-1.0, label=False)]
    metrics = of(KTO(beta=0.5), *rows).metrics
    assert {name: (mean.sum / mean.count).item() for name, mean in metrics.items()} == {
        "rewards/chosen": 1.5,  # 0.5 * (4 + 2) / 2
        "rewards/rejected": -0.5,
        "logps/chosen": -4.0,  # -7 + 3
        "logps/rejected": -8.0,
        "kl": 0.0,
    }


def test_a_batch_of_one_label_says_nothing_of_the_other() -> None:
    metrics = of(KTO(), row(4.0, label=True)).metrics
    assert metrics["rewards/chosen"].count == 1
    assert metrics["rewards/rejected"].count == metrics["logps/rejected"].count == 0


@pytest.mark.parametrize(
    ("missing", "words"),
    [("mismatched", "a mismatched response for each response; found: none"), ("labels", "a label for each response")],
)
def test_what_the_assembler_left_out_is_named(missing: str, words: str) -> None:
    scores, targets = lay(KTO().needs, [row(0.0, label=True)])
    with pytest.raises(ShapeError, match=words):
        KTO()(scores, replace(targets, **{missing: None}))
