"""Reward objectives through the trainer: heads that are made, losses that fall, and exact measures of a whole set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modalign.assembler import Sample, assemble, encode
from modalign.comparison import Comparison
from modalign.content import Response
from modalign.errors import ConfigError, ModelError
from modalign.evaluation.calibration import auroc, calibration_error
from modalign.heads import GaussianHead, LabelHead, LinearHead
from modalign.objectives import (
    BradleyTerry,
    Cost,
    Moderation,
    Objective,
    Ordinal,
    Predictions,
    RaoKupper,
    Regression,
    Thurstone,
)
from modalign.testing import toy_model, toy_pairs
from modalign.testing.doubles import ToyPreparer, ask, say
from modalign.training import Trainer
from modalign.training.evaluation import measure, prediction_metrics
from modalign.training.heads import add_heads

TWO = ("a", "b")


def scored(response: Response, scores: Mapping[str, float]) -> Response:
    return replace(response, scores=dict(scores))


def pairs(count: int = 8) -> list[Comparison]:
    """Pairs judged in two dimensions, of which some say nothing; responses with a flag `unsafe`."""
    found: list[Comparison] = []
    for number, pair in enumerate(toy_pairs(count)):
        said = {"a": 1.0} if number % 3 == 0 else {"b": 0.0} if number % 3 == 1 else {"a": 0.5, "b": 1.0}
        flags = [{"unsafe": 0.0}, {"unsafe": 1.0} if number % 2 else {}]
        responses = tuple(scored(one, flag) for one, flag in zip(pair.responses, flags, strict=True))
        found.append(replace(pair, responses=responses, preferences=said))
    return found


def singles(count: int = 8) -> list[Comparison]:
    """Responses alone and in groups: `a` is 1 for those that repeat a letter, `b` a rate by length, often missing."""
    found: list[Comparison] = []
    for number in range(count):
        letter = chr(97 + number)
        good = scored(say(letter * 3), {"a": 1.0, "b": 2.0} if number % 2 else {"a": 1.0})
        bad = scored(say(chr(110 + number) * 2), {"a": 0.0, "b": 1.0})
        prompt = ask(f"say {letter}: ")
        if number % 3 == 0:
            found.append(replace(Comparison.group(prompt, [good, bad]), id=f"group-{number}"))
        else:
            found.append(replace(Comparison.unpaired(prompt, good if number % 2 else bad), id=f"single-{number}"))
    return found


CASES: dict[str, tuple[Objective, Sequence[Comparison]]] = {
    "reward": (BradleyTerry(dimensions=TWO), pairs()),
    "rao_kupper": (RaoKupper(dimensions=TWO), pairs()),
    "thurstone": (Thurstone(dimensions=TWO), pairs()),
    "cost": (Cost(), pairs()),
    "regression": (Regression(dimensions=TWO, head_options={"read": "mean"}), singles()),
    "ordinal": (Ordinal(dimensions=TWO, learned=False), singles()),
    "learned": (Ordinal(dimensions=TWO), singles()),
    "moderation": (Moderation(dimensions=("a",)), singles()),
}


def trainer(name: str, folder: Path, **settings: object) -> Trainer:
    objective, data = CASES[name]
    return Trainer(
        model=toy_model(),
        objective=objective,
        data=data,
        eval_data=data,
        quiet=True,
        output_dir=folder,
        **{"learning_rate": 3e-2, "lr_scheduler_type": "constant", **settings},
    )


@pytest.mark.parametrize("name", CASES)
def test_a_tiny_run_learns(name: str, tmp_path: Path) -> None:
    made = trainer(name, tmp_path, max_steps=25, per_device_train_batch_size=4)
    before = made.evaluate()["eval_loss"]
    made.train()
    assert made.evaluate()["eval_loss"] < 0.7 * before


@pytest.mark.parametrize("name", CASES)
def test_measures_are_of_the_whole_set_whatever_the_batch(name: str, tmp_path: Path) -> None:
    found = [trainer(name, tmp_path, per_device_eval_batch_size=size).evaluate() for size in (1, 3, 8)]
    by_batch = {"eval_min_reward", "eval_max_reward"}
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key in found[0].keys() - by_batch:
            assert other[key] == pytest.approx(found[0][key], abs=1e-6), key


def test_the_measures_are_those_of_the_arrays_that_come_with_them(tmp_path: Path) -> None:
    found = measure(trainer("moderation", tmp_path, per_device_eval_batch_size=3).parts)
    judged = found.predictions["a"]
    assert (judged.kind, judged.predicted.dtype) == ("label", torch.float64)
    # eight prompts, three of which (0, 3, 6) have two responses
    assert sorted(judged.said.tolist()) == [0.0] * 5 + [1.0] * 6
    area = auroc(judged.predicted, judged.said)
    assert area is not None
    assert found.metrics["eval_auroc/a"] == area.value
    assert (found.metrics["eval_auroc/a_low"], found.metrics["eval_auroc/a_high"]) == (area.low, area.high)
    assert found.metrics["eval_ece/a"] == calibration_error(judged.predicted, judged.said)
    assert {
        "eval_f1/a",
        "eval_best_f1/a",
        "eval_threshold/a",
        "eval_brier/a",
        "eval_accuracy/a",
    } <= found.metrics.keys()


def test_preferences_are_measured_by_dimension_and_missing_ones_left_out(tmp_path: Path) -> None:
    found = measure(trainer("reward", tmp_path).parts)
    # of eight pairs 0, 3, 6 say a = 1; 1, 4, 7 say b = 0; 2, 5 say a = 0.5 and b = 1
    assert sorted(found.predictions["a"].said.tolist()) == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert sorted(found.predictions["b"].said.tolist()) == [0.0, 0.0, 0.0, 1.0, 1.0]
    for name in TWO:
        judged = found.predictions[name]
        ordered = judged.said != 0.5
        right = ((judged.predicted > 0.5) == (judged.said > 0.5))[ordered].double().mean().item()
        assert found.metrics[f"eval_accuracy/{name}"] == pytest.approx(right)
        low, high = (found.metrics[f"eval_accuracy/{name}_{end}"] for end in ("low", "high"))
        assert low <= right <= high
        assert 0 <= found.metrics[f"eval_ece/{name}"] <= 1


def test_a_label_without_a_positive_has_no_area_and_nothing_that_is_not_a_number() -> None:
    one = Predictions(kind="label", predicted=torch.tensor([0.2, 0.4]), said=torch.zeros(2))
    none = Predictions(kind="number", predicted=torch.zeros(0), said=torch.zeros(0))
    found = prediction_metrics({"x": one, "y": none})
    assert "auroc/x" not in found
    assert found["accuracy/x"] == 1.0
    assert all(math.isfinite(value) for value in found.values())
    assert not [name for name in found if "/y" in name]


def test_numbers_are_measured_by_their_errors() -> None:
    one = Predictions(kind="number", predicted=torch.tensor([1.0, 4.0]), said=torch.tensor([1.0, 0.0]))
    assert prediction_metrics({"x": one}) == {"mae/x": 2.0, "rmse/x": pytest.approx(math.sqrt(8))}


def test_the_assembler_lays_out_what_people_said() -> None:
    samples = [Sample(comparison=one, encoded=ToyPreparer().encode(one), own=2) for one in (*pairs(3), toy_pairs(4)[3])]
    targets = assemble(samples, share=True).targets
    assert targets.preferences["a"].nan_to_num(-1).tolist() == [1.0, -1.0, 0.5, -1.0]
    assert targets.preferences["b"].nan_to_num(-1).tolist() == [-1.0, 0.0, 1.0, -1.0]
    assert targets.rewards["unsafe"].nan_to_num(-1).tolist() == [0.0, -1.0, 0.0, 1.0, 0.0, -1.0, -1.0, -1.0]
    mixed = assemble([encode(one, ToyPreparer(), Regression(dimensions=TWO).needs) for one in singles(3)], share=True)
    assert mixed.targets.rewards["b"].nan_to_num(-1).tolist() == [-1.0, 1.0, 2.0, 1.0]  # a group of two, and two alone
    assert mixed.targets.weights.tolist() == [1.0] * 4
    assert mixed.targets.preferences == {}


# --- heads -----------------------------------------------------------------------------------------


def test_an_objective_gets_the_head_it_asks_for_and_always_the_same_one() -> None:
    heads = []
    for _ in range(2):
        model = toy_model()
        add_heads(model, Thurstone(head="sure", dimensions=TWO, head_options={"read": "mean"}), seed=3)
        heads.append(model.heads["sure"])
    assert isinstance(heads[0], GaussianHead)
    assert (heads[0].judged, heads[0].read) == (TWO, "mean")
    assert all(value.equal(heads[1].state_dict()[name]) for name, value in heads[0].state_dict().items())


def test_a_head_the_model_has_is_kept() -> None:
    model = toy_model()
    model.heads["reward"] = head = LinearHead(16, dimensions=TWO)
    add_heads(model, BradleyTerry(dimensions=TWO), seed=0)
    assert model.heads["reward"] is head


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (BradleyTerry(dimensions=("a", "c")), "to give a, c; found: a LinearHead that gives a, b"),
        (
            Thurstone(dimensions=TWO),
            "to give a, b, a/log_variance, b/log_variance; found: a LinearHead that gives a, b",
        ),
    ],
)
def test_a_head_of_other_dimensions_is_an_error_that_names_both(objective: Objective, wanted: str) -> None:
    model = toy_model()
    model.heads["reward"] = LinearHead(16, dimensions=TWO)
    with pytest.raises(ModelError, match=wanted):
        add_heads(model, objective, seed=0)


def test_a_setting_that_a_head_does_not_have_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'linear' cannot be made with these settings; found: \{'colour': 1\}"):
        add_heads(toy_model(), BradleyTerry(head_options={"colour": 1}), seed=0)


def test_only_the_head_that_is_asked_trains(tmp_path: Path) -> None:
    model = toy_model()
    model.heads["labels"] = LabelHead(16)
    Trainer(model=model, objective=BradleyTerry(), data=toy_pairs(2), output_dir=tmp_path, quiet=True)
    assert list(model.heads) == ["labels", "reward"]
    assert not any(parameter.requires_grad for parameter in model.heads["labels"].parameters())
    assert all(parameter.requires_grad for parameter in model.heads["reward"].parameters())
