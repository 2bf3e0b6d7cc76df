"""ORPO by its closed forms, and its odds at the ends."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.objectives import ORPO, Loss
from modalign.objectives.orpo import log1mexp, log_odds
from modalign.testing.rows import Row, lay


def of(objective: ORPO, chosen: float, rejected: float, tokens: tuple[int, int] = (1, 1)) -> Loss:
    logps = torch.tensor([chosen, rejected], dtype=torch.float64)
    return objective(*lay(objective.needs, [Row(logps={"policy": logps}, tokens=tokens)]))


def test_equal_means_give_the_likelihood_and_beta_log_two() -> None:
    # means -3 / 2 and -6 / 4
    assert of(ORPO(beta=0.3), -3.0, -6.0, (2, 4)).mean.item() == pytest.approx(1.5 + 0.3 * math.log(2), rel=1e-14)


def test_it_is_the_paper_s_equation_on_plain_probabilities() -> None:
    # p = 2/3: odds 2; p = 1/4: odds 1/3; odds ratio 6; sigmoid(log 6) = 6 / 7
    odds = (Fraction(2, 3) / (1 - Fraction(2, 3))) / (Fraction(1, 4) / (1 - Fraction(1, 4)))
    assert odds == 6
    loss = of(ORPO(beta=0.1), math.log(2 / 3), math.log(1 / 4))
    assert loss.sum.item() == pytest.approx(-math.log(2 / 3) - 0.1 * math.log(6 / 7), rel=1e-14)
    assert loss.metrics["log_odds_chosen"].sum.item() == pytest.approx(math.log(6))
    assert loss.metrics["log_odds_ratio"].sum.item() == pytest.approx(math.log(6 / 7))
    assert loss.metrics["nll_loss"].sum.item() == pytest.approx(math.log(3 / 2))


@given(st.floats(-30, -1e-6), st.floats(-30, -1e-6), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_a_better_chosen_and_a_worse_rejected_response_cost_less(chosen: float, rejected: float, step: float) -> None:
    base = of(ORPO(beta=1.0), chosen - step, rejected).sum
    assert of(ORPO(beta=1.0), chosen, rejected).sum < base
    assert of(ORPO(beta=1.0), chosen - step, rejected - step).sum <= base


@pytest.mark.parametrize("x", [-1e-12, -1e-5, -0.5, -math.log(2), -0.7, -5.0, -40.0, -700.0])
def test_log1mexp_keeps_its_digits(x: float) -> None:
    # log(1 - e^x) = log(-expm1(x)) = log1p(-e^x): the series of each where the other cancels
    exact = math.log(-math.expm1(x)) if x > -math.log(2) else math.log1p(-math.exp(x))
    value = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    found = log1mexp(value)
    assert found.item() == pytest.approx(exact, rel=1e-14)
    found.backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(-1 / math.expm1(-x), rel=1e-9)  # -e^x / (1 - e^x)


@pytest.mark.parametrize("logp", [0.0, 1e-9, -1e-30, -1e4])
def test_odds_and_their_gradients_are_finite_at_the_ends(logp: float) -> None:
    value = torch.tensor(logp, dtype=torch.float64, requires_grad=True)
    odds = log_odds(value)
    odds.backward()
    assert odds.isfinite()
    assert value.grad is not None
    assert value.grad.isfinite()
