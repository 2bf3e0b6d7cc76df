"""What all objectives over reward heads keep: the laws with judgements that are partly missing, and masks that hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from modalign.assembler import encode
from modalign.comparison import Comparison
from modalign.errors import DataError, ShapeError
from modalign.objectives import (
    BradleyTerry,
    Cost,
    Moderation,
    Objective,
    Ordinal,
    RaoKupper,
    Regression,
    Thurstone,
)
from modalign.testing import toy_pairs
from modalign.testing.doubles import ToyPreparer, ask, say
from modalign.testing.laws import LAWS
from modalign.testing.rows import lay, random_row

TWO = ("helpfulness", "harmlessness")
MAKE: dict[str, Callable[[tuple[str, ...]], Objective]] = {
    "reward": lambda names: BradleyTerry(dimensions=names),
    "centred": lambda names: BradleyTerry(dimensions=names, center_rewards_coefficient=0.1),
    "rao_kupper": lambda names: RaoKupper(dimensions=names),
    "thurstone": lambda names: Thurstone(dimensions=names),
    "regression": lambda names: Regression(dimensions=names),
    "huber": lambda names: Regression(dimensions=names, huber_delta=0.5),
    "ordinal": lambda names: Ordinal(dimensions=names, learned=False),
    "learned": lambda names: Ordinal(dimensions=names, cuts=(-1.0, 1.5)),
    "moderation": lambda names: Moderation(dimensions=names, pos_weights={names[0]: 3.0}),
}
OBJECTIVES = {name: make(TWO) for name, make in MAKE.items()} | {"cost": Cost(), "whole": BradleyTerry()}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_with_missing_judgements_keeps_the_law(name: str, law: str) -> None:
    LAWS[law](OBJECTIVES[name])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_the_one_finite_differences_give(name: str) -> None:
    objective = OBJECTIVES[name]
    rows = [random_row(objective.needs, seed=seed) for seed in range(6)]
    leaves = [leaf for row in rows for leaf in row.leaves]

    def loss(*values: Tensor) -> Tensor:
        moved = [row.with_leaves([value]) for row, value in zip(rows, values, strict=True)]
        return objective(*lay(objective.needs, moved)).sum

    assert objective(*lay(objective.needs, rows)).count > 0
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("name", MAKE)
def test_dimensions_together_are_the_sum_of_each_alone(name: str) -> None:
    objective = OBJECTIVES[name]
    rows = [random_row(objective.needs, seed=seed) for seed in range(8)]
    scores, targets = lay(objective.needs, rows)
    head = objective.needs.heads[0]
    together = objective(scores, targets)
    numbers = scores["policy"].rewards[head]
    per = numbers.shape[1] // 2
    total, count = 0.0, 0.0
    for at, dimension in enumerate(TWO):
        columns = numbers[:, at::2] if name == "thurstone" else numbers[:, at * per :][:, :per]
        alone = MAKE[name]((dimension,))
        if name == "moderation":
            alone = Moderation(dimensions=(dimension,), pos_weights={dimension: 3.0} if at == 0 else {})
        loss = alone({"policy": replace(scores["policy"], rewards={head: columns})}, targets)
        total, count = total + loss.sum.item(), count + loss.count.item()
    assert together.sum.item() == pytest.approx(total, rel=1e-12)
    assert together.count.item() == pytest.approx(count)
    assert 0 < count < 2 * sum(row.weight for row in rows)  # some judgements are missing


@pytest.mark.parametrize("name", MAKE)
def test_a_dimension_nobody_judged_has_a_gradient_of_exactly_zero_even_where_its_numbers_are_nan(name: str) -> None:
    objective = OBJECTIVES[name]
    rows = [random_row(objective.needs, seed=seed) for seed in range(8)]
    scores, targets = lay(objective.needs, rows)
    head = objective.needs.heads[0]
    numbers = scores["policy"].rewards[head].detach()
    # of each number: which dimension it is of, and so whether anybody judged it
    per = numbers.shape[1] // 2
    of = torch.arange(numbers.shape[1]) % 2 if name == "thurstone" else torch.arange(numbers.shape[1]) // per
    said = targets.preferences or targets.rewards
    known = torch.stack([~said[dimension].isnan() for dimension in TWO], dim=-1)  # b 2 or a 2
    if objective.needs.pairing == "pair":
        known = known.repeat_interleave(2, dim=0)
    mask = known[:, of]
    values = numbers.masked_fill(~mask, torch.nan).requires_grad_()
    loss = objective({"policy": replace(scores["policy"], rewards={head: values})}, targets)
    loss.sum.backward()
    assert loss.sum.isfinite()
    assert values.grad is not None
    assert (~mask).any()
    assert (values.grad[~mask] == 0).all()
    assert values.grad[mask].isfinite().all()
    assert (values.grad[mask] != 0).any()
    assert all(mean.sum.isfinite() for mean in loss.metrics.values())


def test_the_class_needs_what_its_default_settings_need() -> None:
    assert BradleyTerry.needs == BradleyTerry().needs
    assert Moderation.needs.heads == ("labels",)
    assert Thurstone(head="sure", dimensions=TWO).needs.heads == ("sure",)
    spec = Ordinal(head_options={"read": "mean"}).needs.spec("reward")
    assert (spec.type, spec.dimensions) == ("ordinal", ("reward",))
    assert spec.options == {"cuts": [-2.0, 0.0, 2.0], "read": "mean"}


def test_predictions_leave_out_what_nobody_said_and_what_fills_a_batch_up() -> None:
    objective = OBJECTIVES["moderation"]
    rows = [random_row(objective.needs, seed=seed) for seed in range(12)]
    rows[0] = replace(rows[0], weight=0.0)
    scores, targets = lay(objective.needs, rows)
    found = objective.predictions(scores, targets)
    assert list(found) == list(TWO)
    for at, name in enumerate(TWO):
        known = ~targets.rewards[name].isnan() & (targets.weights != 0)
        assert found[name].kind == "label"
        assert found[name].said.tolist() == targets.rewards[name][known].tolist()
        logits = scores["policy"].rewards["labels"][known, at]
        assert found[name].predicted.tolist() == pytest.approx(logits.sigmoid().tolist())


def test_names_of_predictions_do_not_depend_on_the_batch() -> None:
    for objective in OBJECTIVES.values():
        rows = [random_row(objective.needs, seed=seed) for seed in range(4)]
        names = objective.predictions(*lay(objective.needs, rows)).keys()
        assert names
        for part in ([], rows[:1], rows[1:]):
            assert objective.predictions(*lay(objective.needs, part)).keys() == names


def test_a_judgement_out_of_range_names_its_column() -> None:
    objective = Moderation(dimensions=("hate",))
    scores, targets = lay(objective.needs, [random_row(objective.needs, seed=0)])
    wrong = replace(targets, rewards={"hate": torch.tensor([2.0], dtype=torch.float64)})
    with pytest.raises(DataError, match=r"field=scores.hate: expected a number from 0 to 1; found: 2"):
        objective(scores, wrong)
    pairs = BradleyTerry(dimensions=("tone",))
    scores, targets = lay(pairs.needs, [random_row(pairs.needs, seed=0)])
    wrong = replace(targets, preferences={"tone": torch.tensor([-0.5], dtype=torch.float64)})
    with pytest.raises(DataError, match=r"field=preferences.tone: expected a number from 0 to 1; found: -0.5"):
        pairs(scores, wrong)


def test_a_head_of_too_few_numbers_is_refused_in_words() -> None:
    objective = Ordinal(dimensions=TWO)
    scores, targets = lay(Regression(dimensions=TWO).needs, [random_row(objective.needs, seed=0)])
    with pytest.raises(ShapeError, match=r"Ordinal takes rewards .* k=6 from a head named `reward`.*type ordinal"):
        objective(scores, targets)


@pytest.mark.parametrize("dimensions", [(), ("a", "a"), ("",)])
def test_dimensions_are_named_each_once(dimensions: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="one or more names, each once"):
        BradleyTerry(dimensions=dimensions)


def test_words_of_flags_are_what_they_say() -> None:
    options = BradleyTerry(head_options={"bias": "false", "read": "mean", "projection": "32"}).head_options
    assert options == {"bias": False, "read": "mean", "projection": 32}


HELPFUL = replace(toy_pairs(1)[0], preferences={"helpfulness": 0.25})
RATED = Comparison.unpaired(ask("a"), replace(say("b"), scores={"helpfulness": 3.0, "unsafe": 1.0}, reward=0.5))


@pytest.mark.parametrize(
    ("objective", "row"),
    [
        (BradleyTerry(), toy_pairs(1)[0]),  # the order of a pair is a judgement
        (BradleyTerry(dimensions=TWO), HELPFUL),
        (Cost(), toy_pairs(1)[0]),
        (Ordinal(dimensions=TWO), RATED),
        (Regression(), RATED),
        (Moderation(dimensions=("unsafe",)), RATED),
    ],
)
def test_a_row_that_says_something_of_what_is_asked_is_taken(objective: Objective, row: Comparison) -> None:
    encode(row, ToyPreparer(), objective.needs)


@pytest.mark.parametrize(
    ("objective", "row", "found"),
    [
        (BradleyTerry(dimensions=("harmlessness",)), HELPFUL, "nobody judged.*helpfulness; scores: none.*harmlessness"),
        (Moderation(), RATED, r"nobody judged .*scores: helpfulness, unsafe; to mend: give one of harmful"),
        (Moderation(dimensions=("helpfulness",)), RATED, "scores.helpfulness: expected a number from 0 to 1; found: 3"),
        (Ordinal(cuts=(0.0,), dimensions=TWO), RATED, "scores.helpfulness: expected a whole number from 0 to 1"),
        (Ordinal(), RATED, "scores.reward: expected a whole number from 0 to 3; found: 0.5"),
        (Cost(), replace(RATED, kind="group"), "needs a chosen and a rejected response"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_found_before_training(
    objective: Objective, row: Comparison, found: str
) -> None:
    with pytest.raises(DataError, match=found):
        encode(row, ToyPreparer(), objective.needs)


def test_pairs_that_are_judged_one_by_one_give_each_response_the_weight_of_its_pair() -> None:
    objective = Regression()
    scores, targets = lay(BradleyTerry().needs, [random_row(BradleyTerry().needs, seed=seed) for seed in range(2)])
    said = torch.tensor([1.0, math.nan, 0.0, 2.0], dtype=torch.float64)
    loss = objective(scores, replace(targets, rewards={"reward": said}))
    numbers = scores["policy"].rewards["reward"][:, 0].detach()
    errors = (numbers - said).square().nan_to_num(0.0)
    weights = targets.weights.repeat_interleave(2)
    assert loss.sum.item() == pytest.approx((errors * weights).sum().item())
    assert loss.count.item() == pytest.approx(weights[[0, 2, 3]].sum().item())
