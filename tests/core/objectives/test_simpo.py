"""SimPO by its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.objectives import Loss, SimPO
from modalign.testing.rows import Row, lay


def of(objective: SimPO, chosen: float, rejected: float, tokens: tuple[int, int] = (2, 4)) -> Loss:
    logps = torch.tensor([chosen, rejected], dtype=torch.float64)
    return objective(*lay(objective.needs, [Row(logps={"policy": logps}, tokens=tokens)]))


@pytest.mark.parametrize("gamma", [0.0, 1.4])
def test_equal_means_give_the_softplus_of_gamma(gamma: float) -> None:
    # means -3 / 2 and -6 / 4 are equal, sums are not
    loss = of(SimPO(gamma=gamma), -3.0, -6.0)
    assert loss.mean.item() == pytest.approx(math.log1p(math.exp(gamma)), rel=1e-14)


@given(st.floats(-60, 0), st.floats(-60, 0), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(chosen: float, rejected: float, one: int, other: int) -> None:
    loss = of(SimPO(beta=2.5, gamma=1.4), chosen, rejected, (one, other))
    value = 2.5 * chosen / one - 2.5 * rejected / other - 1.4
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-value)), rel=1e-9, abs=1e-12)


def test_a_longer_response_of_the_same_quality_costs_the_same() -> None:
    # a peer normalises by the padded length, so that both have the same
    assert of(SimPO(), -3.0, -6.0, (3, 3)).sum.item() == pytest.approx(of(SimPO(), -3.0, -12.0, (3, 6)).sum.item())


def test_a_response_without_tokens_has_the_mean_zero() -> None:
    assert of(SimPO(gamma=0.0), 0.0, 0.0, (0, 4)).mean.item() == pytest.approx(math.log(2))


def test_rewards_are_scaled_means_and_logps_are_sums() -> None:
    metrics = of(SimPO(beta=2.0), -3.0, -8.0).metrics
    assert metrics["rewards/chosen"].sum.item() == -3.0  # 2 * -3 / 2
    assert metrics["rewards/rejected"].sum.item() == -4.0  # 2 * -8 / 4
    assert metrics["logps/rejected"].sum.item() == -8.0
