"""DPO by its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.batch import Targets
from modalign.objectives import DPO, Loss
from modalign.scores import Scores, Units
from modalign.testing.rows import Row, lay


def of(objective: DPO, chosen: float, rejected: float) -> tuple[Loss, Tensor]:
    """The loss of one pair with these log-ratios (the reference's log-likelihoods are -7 and -3)."""
    reference = torch.tensor([-7.0, -3.0], dtype=torch.float64)
    policy = (reference + torch.tensor([chosen, rejected], dtype=torch.float64)).requires_grad_()
    return objective(*lay(objective.needs, [Row(logps={"policy": policy, "reference": reference})])), policy


@pytest.mark.parametrize("beta", [0.01, 0.1, 10.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_equal_log_ratios_give_log_two(beta: float, label_smoothing: float) -> None:
    loss, _ = of(DPO(beta=beta, label_smoothing=label_smoothing), 2.0, 2.0)
    assert loss.mean.item() == pytest.approx(math.log(2), rel=1e-14)  # -log sigmoid(0) = log 2


def test_the_gradient_at_equal_log_ratios_is_half_of_beta() -> None:
    loss, policy = of(DPO(beta=0.1), 0.0, 0.0)
    loss.sum.backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([-0.05, 0.05])  # -beta * sigmoid(-0), and its negative


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.01, 2.0))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(chosen: float, rejected: float, beta: float) -> None:
    loss, _ = of(DPO(beta=beta), chosen, rejected)
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-beta * (chosen - rejected))), rel=1e-9, abs=1e-12)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
@settings(max_examples=25, deadline=None)
def test_the_losses_of_a_pair_and_its_swap_differ_by_the_margin(chosen: float, rejected: float) -> None:
    margin = 0.1 * (chosen - rejected)
    straight, turned = of(DPO(beta=0.1), chosen, rejected)[0], of(DPO(beta=0.1), rejected, chosen)[0]
    # log(1 + e^-m) - log(1 + e^m) = -m
    assert (straight.sum - turned.sum).item() == pytest.approx(-margin, abs=1e-8)


def test_a_sure_pair_costs_nothing_and_a_wrong_one_its_margin() -> None:
    assert of(DPO(beta=0.1), 1e4, -1e4)[0].sum.item() == pytest.approx(0, abs=1e-12)
    assert of(DPO(beta=0.1), -1e4, 1e4)[0].sum.item() == pytest.approx(2000)  # 0.1 * 2e4


def test_label_smoothing_has_its_minimum_where_the_margin_says_as_much() -> None:
    # the minimum of -(1-e) log s(m) - e log s(-m) is at s(m) = 1 - e: m = log(0.8 / 0.2) = log 4
    loss, policy = of(DPO(beta=1.0, label_smoothing=0.2), math.log(4), 0.0)
    loss.sum.backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_metrics_are_in_rewards() -> None:
    metrics = of(DPO(beta=0.5), 4.0, 1.0)[0].metrics
    expected = {
        "rewards/chosen": 2.0,  # 0.5 * 4
        "rewards/rejected": 0.5,
        "rewards/margins": 1.5,
        "rewards/accuracies": 1.0,
        "logps/chosen": -3.0,  # -7 + 4
        "logps/rejected": -2.0,
    }
    said = {name: (mean.sum / mean.count).item() for name, mean in metrics.items() if mean.count}
    assert said == expected  # nothing here is drawn, so there is no displacement


def drawn(chosen: float, rejected: float, *, tokens: tuple[float, float] | None = None) -> Scores:
    """Scores of a pair of media of 4 dimensions, two draws each, and of one word each where asked."""
    values = torch.tensor([chosen - 1, chosen + 1, rejected, rejected], dtype=torch.float64, requires_grad=True)
    units = {"media": Units(kind="draw", values=values, segment=torch.tensor([0, 0, 1, 1]), dims=torch.full((4,), 4))}
    owners = [0, 1]
    if tokens is not None:
        units["words"] = Units(
            kind="token", values=torch.tensor(tokens, dtype=torch.float64), segment=torch.tensor([2, 3])
        )
        owners += [0, 1]
    ones = torch.ones(len(owners), dtype=torch.float64)
    return Scores(units=units, response=torch.tensor(owners), weight=ones, responses=2)


def targets() -> Targets:
    return Targets(
        pairs=torch.tensor([[0, 1]]), own=torch.arange(2), weights=torch.ones(1), group=torch.zeros(2, dtype=torch.long)
    )


def test_displacement_is_the_growth_of_errors_per_dimension() -> None:
    found = DPO()({"policy": drawn(-6.0, -9.0), "reference": drawn(-4.0, -4.0)}, targets()).metrics
    assert found["displacement/chosen"].sum.item() == pytest.approx((12 - 8) / 4)  # errors are -2 log-likelihoods
    assert found["displacement/rejected"].sum.item() == pytest.approx((18 - 8) / 4)


def test_the_sft_term_is_the_mean_error_of_the_chosen_and_the_mean_of_its_tokens() -> None:
    policy, reference = drawn(-6.0, -9.0, tokens=(-0.5, -3.0)), drawn(-6.0, -9.0, tokens=(-0.5, -3.0))
    plain, more = (
        DPO(sft_weight=weight)({"policy": policy, "reference": reference}, targets()).mean.item()
        for weight in (0.0, 2.0)
    )
    assert plain == pytest.approx(math.log(2))
    assert more == pytest.approx(math.log(2) + 2 * (12 / 4 + 0.5))
