"""Bradley-Terry by its closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import ShapeError
from modalign.objectives import BradleyTerry, Loss
from modalign.testing.laws import Row, lay


def row(chosen: float, rejected: float, *, margin: float | None = None, weight: float = 1.0) -> Row:
    rewards = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    return Row(rewards=rewards, margin=margin, weight=weight)


def of(objective: BradleyTerry, *rows: Row) -> Loss:
    return objective(*lay(objective.needs, rows))


def test_equal_rewards_give_log_two() -> None:
    assert of(BradleyTerry(), row(3.0, 3.0)).mean.item() == pytest.approx(math.log(2), rel=1e-14)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(chosen: float, rejected: float, margin: float) -> None:
    loss = of(BradleyTerry(), row(chosen, rejected, margin=margin))
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-(chosen - rejected - margin))), rel=1e-9, abs=1e-12)


def test_only_the_difference_counts_until_rewards_are_centred() -> None:
    plain, moved = of(BradleyTerry(), row(1.0, -2.0)), of(BradleyTerry(), row(101.0, 98.0))
    assert plain.sum.item() == pytest.approx(moved.sum.item())
    centred = of(BradleyTerry(center_rewards_coefficient=0.01), row(1.0, -2.0))
    assert centred.sum.item() == pytest.approx(math.log1p(math.exp(-3)) + 0.01)  # 0.01 times the square of 1 - 2


def test_a_pair_without_a_margin_beside_one_with_a_margin_has_none() -> None:
    together = of(BradleyTerry(), row(1.0, 0.0), row(1.0, 0.0, margin=1.0))
    assert together.sum.item() == pytest.approx(math.log1p(math.exp(-1)) + math.log(2))


def test_metrics_carry_trl_s_names() -> None:
    metrics = of(BradleyTerry(), row(3.0, 1.0), row(-1.0, 2.0), row(100.0, -100.0, weight=0.0)).metrics
    assert {name: (mean.sum / mean.count).item() for name, mean in metrics.items()} == {
        "accuracy": 0.5,
        "margin": -0.5,  # (2 - 3) / 2
        "mean_reward": 1.25,  # (3 + 1 - 1 + 2) / 4
        "min_reward": -1.0,
        "max_reward": 3.0,
    }


def test_extremes_of_batches_are_averaged_as_means_are() -> None:
    first, second = (of(BradleyTerry(), one).metrics["max_reward"] for one in (row(3.0, 1.0), row(5.0, 1.0)))
    assert ((first.sum + second.sum) / (first.count + second.count)).item() == 4.0


def test_a_batch_of_fillers_says_nothing() -> None:
    metrics = of(BradleyTerry(), row(3.0, 1.0, weight=0.0)).metrics
    assert all(mean.sum == mean.count == 0 for mean in metrics.values())


@pytest.mark.parametrize(
    ("rewards", "found"),
    [
        ({}, "heads: none"),
        ({"safety": torch.zeros(2, 1)}, "heads: safety"),
        ({"reward": torch.zeros(2, 3)}, r"\(2, 3\)"),
    ],
)
def test_a_head_that_does_not_fit_is_named(rewards: dict[str, torch.Tensor], found: str) -> None:
    scores, targets = lay(BradleyTerry().needs, [row(0.0, 0.0)])
    with pytest.raises(ShapeError, match=f"a head named `reward`; found: {found}"):
        BradleyTerry()({"policy": replace(scores["policy"], rewards=rewards)}, targets)
