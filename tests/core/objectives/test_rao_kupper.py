"""Rao and Kupper's ties by their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.objectives import BradleyTerry, Loss, Objective, RaoKupper
from modalign.testing.rows import Row, lay


def of(objective: Objective, difference: float, said: float, *, margin: float | None = None) -> Loss:
    rewards = torch.tensor([difference, 0.0], dtype=torch.float64, requires_grad=True)
    scores, targets = lay(objective.needs, [Row(rewards=rewards, margin=margin)])
    return objective(scores, replace(targets, preferences={"reward": torch.tensor([said], dtype=torch.float64)}))


@given(st.floats(-20, 20), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_model(difference: float, tie: float) -> None:
    theta, one = math.exp(tie), math.exp(difference)  # the other's worth is 1
    first, second = one / (one + theta), 1 / (1 + theta * one)
    tied = (theta**2 - 1) * one / ((one + theta) * (1 + theta * one))
    assert first + second + tied == pytest.approx(1)
    for said, probability in ((1.0, first), (0.0, second), (0.5, tied)):
        found = of(RaoKupper(tie=tie), difference, said).sum.item()
        assert found == pytest.approx(-math.log(probability), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("difference", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("said", [0.0, 1.0])
def test_without_a_threshold_an_order_costs_what_it_does_in_bradley_terry(difference: float, said: float) -> None:
    limit = of(RaoKupper(tie=1e-12), difference, said).sum.item()
    assert limit == pytest.approx(of(BradleyTerry(), difference, said).sum.item(), abs=1e-9)


def test_a_tie_draws_rewards_together_and_an_order_apart() -> None:
    for said, sign in ((0.5, 1), (1.0, -1)):
        rewards = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        scores, targets = lay(RaoKupper().needs, [Row(rewards=rewards)])
        said_of = {"reward": torch.tensor([said], dtype=torch.float64)}
        RaoKupper()(scores, replace(targets, preferences=said_of)).sum.backward()
        assert rewards.grad is not None
        assert rewards.grad[0].sign().item() == sign


def test_three_quarters_is_half_an_order_and_half_a_tie() -> None:
    objective = RaoKupper(tie=0.7)
    order, tie = (of(objective, 0.4, said).sum.item() for said in (1.0, 0.5))
    assert of(objective, 0.4, 0.75).sum.item() == pytest.approx((order + tie) / 2)


def test_a_wide_threshold_does_not_overflow() -> None:
    # P(tie) = tanh(tie / 2) at equal rewards: almost certain
    assert of(RaoKupper(tie=800.0), 0.0, 0.5).sum.item() == pytest.approx(0.0, abs=1e-9)
    assert math.isfinite(of(RaoKupper(tie=800.0), 5.0, 1.0).sum.item())


def test_a_margin_is_taken_from_the_difference() -> None:
    objective = RaoKupper()
    assert of(objective, 2.0, 1.0, margin=1.5).sum.item() == pytest.approx(of(objective, 0.5, 1.0).sum.item())


def test_the_predicted_preference_shares_a_tie_between_the_two() -> None:
    objective = RaoKupper(tie=0.3)
    rewards = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    scores, targets = lay(objective.needs, [Row(rewards=rewards[:2]), Row(rewards=rewards[2:])])
    equal, better = objective.predictions(scores, targets)["reward"].predicted.tolist()
    assert equal == 0.5
    theta, one = math.exp(0.3), math.exp(1.0)
    first, second = one / (one + theta), 1 / (1 + theta * one)
    assert better == pytest.approx(first + (1 - first - second) / 2)
