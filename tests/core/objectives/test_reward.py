"""Bradley-Terry by its closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import ShapeError
from modalign.objectives import BradleyTerry, Loss, Objective
from modalign.testing.rows import Row, lay


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


# --- several dimensions ----------------------------------------------------------------------------

TWO = BradleyTerry(dimensions=("helpfulness", "harmlessness"))


def judged(objective: Objective, numbers: list[list[float]], **preferences: list[float]) -> Loss:
    """Pairs whose responses have these numbers, first and second by turns."""
    scores, targets = lay(objective.needs, [row(0.0, 0.0) for _ in range(len(numbers) // 2)])
    rewards = {"reward": torch.tensor(numbers, dtype=torch.float64)}
    said = {name: torch.tensor(values, dtype=torch.float64) for name, values in preferences.items()}
    return objective({"policy": replace(scores["policy"], rewards=rewards)}, replace(targets, preferences=said))


def test_equal_rewards_give_log_two_per_dimension() -> None:
    loss = judged(TWO, [[1.0, 5.0], [1.0, 5.0]], helpfulness=[1.0], harmlessness=[0.0])
    assert loss.sum.item() == pytest.approx(2 * math.log(2))
    assert loss.count.item() == 2


def test_the_second_response_may_be_the_better_one_in_a_dimension() -> None:
    loss = judged(TWO, [[2.0, 2.0], [0.0, 0.0]], helpfulness=[1.0], harmlessness=[0.0])
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(2)))
    values = {name: mean.sum / mean.count for name, mean in loss.metrics.items()}
    assert values["accuracy"] == 0.5
    assert (values["accuracy/helpfulness"], values["accuracy/harmlessness"]) == (1.0, 0.0)
    assert (values["margin/helpfulness"], values["margin/harmlessness"]) == (2.0, -2.0)


@given(st.floats(-20, 20), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_soft_label_weighs_the_two_orders(difference: float, p: float) -> None:
    loss = judged(BradleyTerry(dimensions=("tone",)), [[difference], [0.0]], tone=[p])
    wanted = p * math.log1p(math.exp(-difference)) + (1 - p) * math.log1p(math.exp(difference))
    assert loss.sum.item() == pytest.approx(wanted, rel=1e-9)


def test_a_tie_counts_in_the_loss_and_in_no_accuracy() -> None:
    loss = judged(BradleyTerry(dimensions=("tone",)), [[3.0], [0.0]], tone=[0.5])
    assert loss.count.item() == 1
    assert loss.metrics["accuracy"].count.item() == loss.metrics["margin/tone"].count.item() == 0


def test_the_order_of_a_pair_is_what_it_says_of_the_whole() -> None:
    both = BradleyTerry(dimensions=("reward", "tone"))
    loss = judged(both, [[3.0, 1.0], [0.0, 0.0], [3.0, 1.0], [0.0, 0.0]], tone=[math.nan, 0.0])
    assert loss.sum.item() == pytest.approx(2 * math.log1p(math.exp(-3)) + math.log1p(math.exp(1)))
    # what the data says of the whole goes before the order
    assert judged(BradleyTerry(), [[3.0], [0.0]], reward=[0.0]).sum.item() == pytest.approx(math.log1p(math.exp(3)))


def test_a_margin_is_of_the_whole_alone() -> None:
    scores, targets = lay(BradleyTerry().needs, [row(1.0, 0.0, margin=1.0)])
    numbers = {"reward": torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)}
    said = {"tone": torch.tensor([1.0], dtype=torch.float64)}
    objective = BradleyTerry(dimensions=("reward", "tone"))
    loss = objective({"policy": replace(scores["policy"], rewards=numbers)}, replace(targets, preferences=said))
    assert loss.sum.item() == pytest.approx(math.log(2) + math.log1p(math.exp(-1)))
