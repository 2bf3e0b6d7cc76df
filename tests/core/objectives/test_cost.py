"""The cost model of Safe RLHF by its equation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from modalign.objectives import Cost, Loss
from modalign.testing.rows import Row, lay


def of(costs: Tensor, flags: tuple[float, float], objective: Cost | None = None, **preferences: float) -> Loss:
    """The loss of a pair, the less harmful response first."""
    objective = objective or Cost()
    scores, targets = lay(objective.needs, [Row(rewards=costs)])
    said = {name: torch.tensor([p], dtype=torch.float64) for name, p in preferences.items()}
    rewards = {"unsafe": torch.tensor(flags, dtype=torch.float64)}
    return objective(scores, replace(targets, preferences=said, rewards=rewards))


def pair(safe: float, harmful: float) -> Tensor:
    return torch.tensor([safe, harmful], dtype=torch.float64, requires_grad=True)


@given(st.floats(-20, 20), st.floats(-20, 20), st.sampled_from([(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]))
@settings(max_examples=25, deadline=None)
def test_it_is_the_paper_s_equation(safe: float, harmful: float, flags: tuple[float, float]) -> None:
    # the paper's winner is the more harmful response; s is 1 for a harmful one and -1 for a harmless one
    winner, loser = harmful, safe
    s_loser, s_winner = (2 * flag - 1 for flag in flags)
    wanted = sum(math.log1p(math.exp(-x)) for x in (winner - loser, s_winner * winner, s_loser * loser))
    loss = of(pair(safe, harmful), flags)
    assert loss.sum.item() == pytest.approx(wanted, rel=1e-9)
    assert loss.count.item() == 1


def test_costs_of_zero_give_three_times_log_two() -> None:
    assert of(pair(0.0, 0.0), (0.0, 1.0)).sum.item() == pytest.approx(3 * math.log(2))


def test_the_sign_terms_push_harmful_costs_up_and_harmless_ones_down() -> None:
    for flags, signs in (((0.0, 1.0), [1, -1]), ((1.0, 1.0), [-1, -1]), ((0.0, 0.0), [1, 1])):
        costs = pair(0.0, 0.0)
        # without an order: a tie, whose gradient at equal costs is 0
        of(costs, flags, reward=0.5).sum.backward()
        assert costs.grad is not None
        assert costs.grad.sign().tolist() == signs


def test_without_flags_it_is_bradley_terry_on_negated_costs() -> None:
    loss = of(pair(1.0, 3.0), (math.nan, math.nan))
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-2)))
    assert loss.metrics["accuracy"].sum.item() == 1
    assert loss.metrics["margin"].sum.item() == 2
    assert loss.metrics["sign_accuracy"].count.item() == 0


def test_flags_alone_are_enough_and_a_pair_of_which_nothing_is_said_does_not_count() -> None:
    objective = Cost(preference="harmlessness")
    loss = of(pair(-1.0, 2.0), (0.0, 1.0), objective, harmlessness=math.nan)
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)))
    assert loss.count.item() == 1
    costs = pair(math.nan, math.nan)
    nothing = of(costs, (math.nan, math.nan), objective)
    nothing.sum.backward()
    assert nothing.sum.item() == nothing.count.item() == 0
    assert costs.grad is not None
    assert costs.grad.tolist() == [0.0, 0.0]


def test_the_dimension_that_orders_a_pair_may_turn_it_round() -> None:
    turned = of(pair(3.0, 1.0), (math.nan, math.nan), Cost(preference="harmlessness"), harmlessness=0.0)
    assert turned.sum.item() == pytest.approx(math.log1p(math.exp(-2)))


def test_predictions_are_of_the_order_and_of_the_flag() -> None:
    scores, targets = lay(Cost().needs, [Row(rewards=pair(-1.0, 2.0))])
    said = replace(targets, rewards={"unsafe": torch.tensor([0.0, math.nan], dtype=torch.float64)})
    found = Cost().predictions(scores, said)
    assert found["cost"].predicted.tolist() == pytest.approx([1 / (1 + math.exp(-3))])
    assert found["unsafe"].predicted.tolist() == pytest.approx([1 / (1 + math.exp(1))])
    assert found["unsafe"].said.tolist() == [0.0]


def test_the_cost_and_the_label_have_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match="both called 'unsafe'"):
        Cost(dimensions=("unsafe",))
