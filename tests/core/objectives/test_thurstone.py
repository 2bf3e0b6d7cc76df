"""Normal rewards by their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.errors import ShapeError
from modalign.objectives import Loss, Thurstone
from modalign.testing.rows import Row, lay


def of(numbers: list[list[float]] | Tensor, said: float = 1.0) -> Loss:
    """The loss of one pair with these means and log-variances."""
    scores, targets = lay(Thurstone().needs, [Row(rewards=torch.zeros(2, dtype=torch.float64))])
    values = numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=torch.float64)
    preferences = {"reward": torch.tensor([said], dtype=torch.float64)}
    policy = replace(scores["policy"], rewards={"reward": values})
    return Thurstone()({"policy": policy}, replace(targets, preferences=preferences))


@given(st.floats(-4, 4), st.floats(-2, 2), st.floats(-2, 2), st.sampled_from([0.0, 1.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_it_is_the_probability_that_one_normal_exceeds_the_other(
    difference: float, one: float, other: float, said: float
) -> None:
    first = NormalDist(sigma=math.sqrt(math.exp(one) + math.exp(other))).cdf(difference)
    found = of([[difference, one], [0.0, other]], said).sum.item()
    assert found == pytest.approx(-said * math.log(first) - (1 - said) * math.log(1 - first), rel=1e-6)


def test_sampled_rewards_agree_with_the_probability() -> None:
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = torch.tensor([0.7, 0.0]) + noise * torch.tensor([1.5, 0.5])
    share = (samples[:, 0] > samples[:, 1]).double().mean().item()
    loss = of([[0.7, 2 * math.log(1.5)], [0.0, 2 * math.log(0.5)]])
    assert math.exp(-loss.sum.item()) == pytest.approx(share, abs=0.004)  # four standard errors of 0.001


@pytest.mark.parametrize("log_variance", [-8.0, 0.0, 8.0])
def test_equal_means_give_log_two_whatever_the_variance(log_variance: float) -> None:
    assert of([[3.0, log_variance], [3.0, -log_variance]]).sum.item() == pytest.approx(math.log(2))


def test_as_variances_vanish_a_right_order_costs_nothing_and_a_wrong_one_without_bound() -> None:
    right = [of([[1.0, v], [0.0, v]]).sum.item() for v in (0.0, -4.0, -10.0)]
    wrong = [of([[0.0, v], [1.0, v]]).sum.item() for v in (0.0, -4.0, -10.0)]
    assert right == sorted(right, reverse=True)
    assert right[-1] == 0.0
    assert wrong == sorted(wrong)
    assert wrong[-1] > 5000  # 1/2 (1 / sqrt(2 exp(-10)))^2 = exp(10) / 4


def test_a_wrong_order_makes_the_head_less_sure_and_a_right_one_surer() -> None:
    for difference, sign in ((1.0, 1), (-1.0, -1)):
        values = torch.tensor([[difference, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        of(values).sum.backward()
        assert values.grad is not None
        assert values.grad[:, 1].sign().tolist() == [sign, sign]


def test_variances_of_one_half_are_case_five() -> None:
    half = math.log(0.5)
    assert of([[0.8, half], [0.0, half]]).sum.item() == pytest.approx(-math.log(NormalDist().cdf(0.8)))


def test_means_without_variances_are_refused_in_words() -> None:
    with pytest.raises(ShapeError, match=r"k=2 from a head named `reward`.*type gaussian"):
        of([[0.8], [0.0]])


def test_extreme_numbers_have_a_finite_loss_and_gradient() -> None:
    for first in (-1e4, 1e4):
        for log_variance in (-1e4, -10.0, 10.0, 1e4):
            values = torch.tensor([[first, log_variance], [0.0, log_variance]], dtype=torch.float64).requires_grad_()
            loss = of(values)
            loss.sum.backward()
            assert loss.sum.isfinite()
            assert values.grad is not None
            assert values.grad.isfinite().all()
