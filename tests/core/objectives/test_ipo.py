"""IPO by its closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.objectives import IPO, Loss
from modalign.testing.rows import Row, lay


def of(objective: IPO, chosen: float, rejected: float, tokens: tuple[int, int] = (2, 4)) -> tuple[Loss, Tensor]:
    """The loss of one pair with these log-ratios."""
    reference = torch.tensor([-7.0, -3.0], dtype=torch.float64)
    policy = (reference + torch.tensor([chosen, rejected], dtype=torch.float64)).requires_grad_()
    row = Row(logps={"policy": policy, "reference": reference}, tokens=tokens)
    return objective(*lay(objective.needs, [row])), policy


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
@pytest.mark.parametrize("length_normalized", [False, True])
def test_equal_log_ratios_give_one_over_four_beta_squared(beta: float, length_normalized: bool) -> None:
    loss, _ = of(IPO(beta=beta, length_normalized=length_normalized), 0.0, 0.0)
    assert loss.mean.item() == pytest.approx(1 / (4 * beta**2), rel=1e-14)  # (0 - 1 / (2 beta))^2


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0.05, 2.0))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(chosen: float, rejected: float, beta: float) -> None:
    loss, _ = of(IPO(beta=beta), chosen, rejected)
    assert loss.sum.item() == pytest.approx((chosen - rejected - 0.5 / beta) ** 2, rel=1e-6, abs=1e-6)


def test_the_margin_it_draws_to_costs_nothing_and_a_larger_one_costs_again() -> None:
    # 1 / (2 * 0.1) = 5
    assert of(IPO(beta=0.1), 6.0, 1.0)[0].sum.item() == pytest.approx(0, abs=1e-12)
    loss, policy = of(IPO(beta=0.1), 7.0, 1.0)
    loss.sum.backward()
    assert loss.sum.item() == pytest.approx(1)  # (6 - 5)^2
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([2, -2])  # a step down the gradient takes the margin back


def test_normalised_log_ratios_are_means_over_tokens() -> None:
    # 6 / 2 - 4 / 4 = 2, and (2 - 1 / (2 * 0.5))^2 = 1
    assert of(IPO(beta=0.5, length_normalized=True), 6.0, 4.0)[0].sum.item() == pytest.approx(1)
    # the sum form sees 6 - 4 = 2 as well, but not where lengths change
    assert of(IPO(beta=0.5, length_normalized=True), 6.0, 4.0, (4, 4))[0].sum.item() == pytest.approx(0.25)
    assert of(IPO(beta=0.5), 6.0, 4.0, (4, 4))[0].sum.item() == pytest.approx(1)


def test_rewards_are_of_sums_either_way() -> None:
    for length_normalized in (False, True):
        metrics = of(IPO(beta=0.5, length_normalized=length_normalized), 6.0, 4.0)[0].metrics
        assert metrics["rewards/margins"].sum.item() == pytest.approx(1)  # 0.5 * (6 - 4)
