"""Cumulative links by their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from modalign.errors import DataError
from modalign.objectives import Loss, Ordinal
from modalign.testing.rows import Row, lay


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def of(objective: Ordinal, numbers: Tensor, said: list[float]) -> Loss:
    rows = [Row(rewards=torch.zeros(1, dtype=torch.float64), tokens=(1,)) for _ in said]
    scores, targets = lay(objective.needs, rows)
    policy = replace(scores["policy"], rewards={"reward": numbers})
    return objective({"policy": policy}, replace(targets, rewards={"reward": torch.tensor(said).double()}))


@given(st.floats(-8, 8), st.lists(st.floats(0.05, 3), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_it_is_the_cumulative_link_and_probabilities_sum_to_one(latent: float, gaps: list[float]) -> None:
    cuts = [-1.0]
    for gap in gaps:
        cuts.append(cuts[-1] + gap)
    objective = Ordinal(cuts=tuple(cuts), learned=False)
    above = [1.0, *(sigmoid(latent - cut) for cut in cuts), 0.0]
    wanted = [before - after for before, after in pairwise(above)]
    numbers = torch.tensor([[latent]], dtype=torch.float64)
    found = objective.log_probabilities(numbers).exp()[0, 0]
    assert found.sum().item() == pytest.approx(1, abs=1e-9)
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    losses = [of(objective, numbers, [float(rate)]).sum.item() for rate in range(objective.rates)]
    assert losses == pytest.approx([-math.log(one) for one in wanted], rel=1e-6)


def test_two_rates_are_logistic_regression() -> None:
    loss = of(Ordinal(cuts=(0.0,), learned=False), torch.tensor([[1.5], [1.5]], dtype=torch.float64), [1.0, 0.0])
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-1.5)) + math.log1p(math.exp(1.5)))


def test_learned_cut_points_are_those_of_the_head() -> None:
    cuts = (-0.5, 0.25, 2.0)
    latent = torch.tensor([[0.3], [-1.0]], dtype=torch.float64)
    fixed = of(Ordinal(cuts=cuts, learned=False), latent, [2.0, 0.0])
    learned = of(Ordinal(), latent - torch.tensor([cuts], dtype=torch.float64), [2.0, 0.0])
    assert learned.sum.item() == pytest.approx(fixed.sum.item())


def test_the_gradient_draws_the_latent_number_into_its_rate() -> None:
    for said, sign in ((0.0, 1), (3.0, -1)):
        latent = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
        of(Ordinal(learned=False), latent, [said]).sum.backward()
        assert latent.grad is not None
        assert latent.grad.sign().item() == sign


def test_cut_points_that_have_run_together_stay_finite() -> None:
    numbers = torch.tensor([[2.0, 2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = of(Ordinal(), numbers, [1.0])
    loss.sum.backward()
    assert loss.sum.isfinite()
    assert numbers.grad is not None
    assert numbers.grad.isfinite().all()


def test_the_expected_rate_is_told() -> None:
    objective = Ordinal(learned=False)
    scores, targets = lay(objective.needs, [Row(rewards=torch.tensor([0.4]).double(), tokens=(1,))])
    said = replace(targets, rewards={"reward": torch.tensor([2.0]).double()})
    found = objective.predictions(scores, said)["reward"]
    probabilities = objective.log_probabilities(torch.tensor([[0.4]]).double()).exp()[0, 0]
    assert found.predicted.item() == pytest.approx((probabilities * torch.arange(4)).sum().item())
    assert found.kind == "number"


@pytest.mark.parametrize(("said", "what"), [(1.5, "a whole number from 0 to 3"), (4.0, "a number from 0 to 3")])
def test_what_is_no_rate_names_its_column(said: float, what: str) -> None:
    with pytest.raises(DataError, match=rf"field=scores.reward: expected a.*{what[2:]}; found: {said:g}"):
        of(Ordinal(), torch.zeros(1, 3, dtype=torch.float64), [said])


@pytest.mark.parametrize("cuts", [(), (1.0, 1.0), (2.0, 1.0), (0.0, math.inf)])
def test_cut_points_rise(cuts: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="rising"):
        Ordinal(cuts=cuts)
