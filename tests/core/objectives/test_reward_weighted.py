"""Reward-weighted regression by its arithmetic: SFT where rewards say nothing, and the better responses more."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.data import read
from modalign.errors import DataError
from modalign.objectives import SFT, RewardWeighted
from modalign.scores import Scores, UnitKind
from modalign.testing import toy_model
from modalign.testing.rows import scores_of
from modalign.training import Trainer

LOGPS = (-6.0, -2.0, -3.0, -5.0, -1.0)
TOKENS = (2, 6, 3, 1, 4)
GROUPS = (0, 0, 0, 1, 1)


def laid(
    rewards: list[float], *, kind: UnitKind = "token", weights: tuple[float, ...] = (1.0, 1.0, 1.0, 2.0, 2.0)
) -> tuple[dict[str, Scores], Targets]:
    """Three responses to one prompt and two to another, of weight 2."""
    targets = Targets(
        pairs=torch.zeros(0, 2, dtype=torch.long),
        own=torch.arange(5),
        weights=torch.tensor(weights, dtype=torch.float64),
        group=torch.tensor(GROUPS),
        rewards={"reward": torch.tensor(rewards, dtype=torch.float64)},
    )
    return {"policy": scores_of(torch.tensor(LOGPS, dtype=torch.float64), TOKENS, kind=kind)}, targets


def mean(objective: RewardWeighted | SFT, rewards: list[float], **how: object) -> float:
    return objective(*laid(rewards, **how)).mean.item()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["token", "draw", "step"])
def test_equal_rewards_are_sft_to_the_last_bit(kind: UnitKind) -> None:
    wanted = SFT()(*laid([0.0] * 5, kind=kind))
    for rewards in ([0.7, 0.7, 0.7, -3.1, -3.1], [1e9] * 5):
        found = RewardWeighted(temperature=0.1)(*laid(rewards, kind=kind))
        assert found.sum.equal(wanted.sum)
        assert found.count.equal(wanted.count)
    alone = RewardWeighted(baseline=0.7)(*laid([0.7] * 5, kind=kind))
    assert alone.sum.equal(wanted.sum)


def test_an_infinite_temperature_is_sft() -> None:
    rewards = [3.0, -1.0, 0.5, 2.0, 8.0]
    assert mean(RewardWeighted(temperature=math.inf), rewards) == mean(SFT(), rewards)
    assert mean(RewardWeighted(temperature=1e9), rewards) == pytest.approx(mean(SFT(), rewards), rel=1e-7)


def test_the_loss_is_that_of_the_papers_formula() -> None:
    rewards = [1.0, 0.0, 0.5, -1.0, 2.0]
    powers = [math.exp(reward / 0.5) for reward in rewards]
    means = [sum(powers[:3]) / 3, sum(powers[3:]) / 2]
    weights = [1.0, 1.0, 1.0, 2.0, 2.0]
    terms = zip(weights, powers, GROUPS, LOGPS, strict=True)
    total = sum(-weight * power / means[group] * logp for weight, power, group, logp in terms)
    count = sum(weight * tokens for weight, tokens in zip(weights, TOKENS, strict=True))
    assert mean(RewardWeighted(temperature=0.5), rewards) == pytest.approx(total / count, rel=1e-14)


def test_a_baseline_compares_each_response_with_a_number() -> None:
    found = RewardWeighted(temperature=0.5, baseline=1.0, max_weight=3.0)(*laid([1.0, 0.0, 1.25, 9.0, 0.5]))
    # e^((R - 1) / 0.5), at most 3
    shares = [1.0, math.exp(-2), math.exp(0.5), 3.0, math.exp(-1)]
    weights = [1.0, 1.0, 1.0, 2.0, 2.0]
    wanted = sum(-w * share * logp for w, share, logp in zip(weights, shares, LOGPS, strict=True))
    assert found.sum.item() == pytest.approx(wanted, rel=1e-14)


def test_what_a_prompts_rewards_share_and_a_common_scale_drop_out() -> None:
    rewards = [1.0, 0.0, 0.5, -1.0, 2.0]
    wanted = mean(RewardWeighted(temperature=0.5), rewards)
    moved = [reward + (100.0, -7.0)[group] for reward, group in zip(rewards, GROUPS, strict=True)]
    assert mean(RewardWeighted(temperature=0.5), moved) == pytest.approx(wanted, rel=1e-12)
    scaled = [10 * reward for reward in rewards]
    assert mean(RewardWeighted(temperature=5.0), scaled) == pytest.approx(wanted, rel=1e-12)
    assert mean(RewardWeighted(temperature=0.5), scaled) != pytest.approx(wanted, rel=1e-2)


def test_a_small_temperature_imitates_the_best_alone() -> None:
    found = RewardWeighted(temperature=1e-3)(*laid([1.0, 0.0, 0.5, -1.0, 2.0]))
    assert found.sum.item() == pytest.approx(3 * 6.0 + 2 * 2 * 1.0)  # the best of three, and of two with weight 2


def test_responses_that_nobody_scored_are_left_out() -> None:
    found = RewardWeighted()(*laid([1.0, math.nan, 1.0, 0.0, 0.0]))
    assert found.sum.item() == pytest.approx(6.0 + 3.0 + 2 * (5.0 + 1.0))
    assert found.count.item() == 2 + 3 + 2 * (1 + 4)
    assert found.metrics["mean_reward"].count.item() == 6.0


def test_metrics_say_what_the_weights_prefer() -> None:
    metrics = RewardWeighted()(*laid([1.0, 0.0, 0.5, -1.0, 2.0])).metrics
    plain, preferred = (metrics[name].sum / metrics[name].count for name in ("mean_reward", "weighted_reward"))
    assert plain.item() == pytest.approx((1.5 + 2 * 1.0) / 7)
    assert preferred > plain


def test_no_weight_depends_on_the_rest_of_the_batch() -> None:
    objective = RewardWeighted(temperature=0.5)
    assert not objective.statistics(*laid([1.0, 0.0, 0.5, -1.0, 2.0]))
    whole = objective(*laid([1.0, 0.0, 0.5, -1.0, 2.0]))
    first = objective(*laid([1.0, 0.0, 0.5, -1.0, 2.0], weights=(1.0, 1.0, 1.0, 0.0, 0.0)))
    second = objective(*laid([1.0, 0.0, 0.5, -1.0, 2.0], weights=(0.0, 0.0, 0.0, 2.0, 2.0)))
    assert (first.sum + second.sum).item() == pytest.approx(whole.sum.item(), rel=1e-15)


# --- rows ------------------------------------------------------------------------------------------------------------


def group(*rewards: float) -> dict[str, object]:
    return {"prompt": "say: ", "responses": [f"{n}" for n in range(len(rewards))], "rewards": list(rewards)}


def test_pairs_that_are_sampled_and_groups_are_trained_on(tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"say {word}: ", "chosen": word, "rejected": "no", "score_chosen": 1.0, "score_rejected": -1.0}
        for word in ("one", "two")
    ]
    losses: dict[str, list[float]] = {}
    for name, rows in {"pairs": pairs, "groups": [group(0.0, 1.0, 0.5), group(2.0, 1.0)]}.items():
        result = Trainer(
            model=toy_model(),
            objective=RewardWeighted(temperature=0.5),
            data=rows,
            output_dir=tmp_path / name,
            max_steps=12,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            quiet=True,
        ).train()
        said = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [one["loss"] for one in said]
        assert said[0]["weighted_reward"] > said[0]["mean_reward"]
    assert all(found[-1] < found[0] for found in losses.values())


@pytest.mark.parametrize("steps", [(2, 1), (1, 2)])
def test_the_loss_is_the_same_however_a_step_is_split(steps: tuple[int, int], tmp_path: Path) -> None:
    size, accumulation = steps
    result = Trainer(
        model=toy_model(),
        objective=RewardWeighted(temperature=0.5),
        data=[group(0.0, 1.0, 0.5), group(2.0, 1.0)],
        output_dir=tmp_path / "run",
        max_steps=1,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        quiet=True,
    ).train()
    assert result.metrics["loss"] == pytest.approx(_whole(tmp_path), rel=1e-6)


def _whole(tmp_path: Path) -> float:
    from modalign.assembler import assemble, encode
    from modalign.draws import Draws

    model, objective = toy_model().eval(), RewardWeighted(temperature=0.5)
    rows = read([group(0.0, 1.0, 0.5), group(2.0, 1.0)])
    samples = [encode(one, model.assembly.preparer, objective.needs) for one in rows]
    batch = assemble(samples, share=model.shares, pad=model.assembly.preparer.pad)
    with torch.no_grad():
        return cast(Tensor, objective({"policy": model(batch, Draws())}, batch.targets).mean).item()


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1.0},
            "compares responses.*1 of 2 responses with reward.*objective.baseline",
        ),
        ({"prompt": "a", "completion": "b", "reward": 1.0}, "compares responses.*1 of 1"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "nobody judged what this objective learns"),
    ],
)
def test_rows_with_nothing_to_compare_are_bad(row: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        Trainer(model=toy_model(), objective=RewardWeighted(), data=[row], output_dir=tmp_path / "run", quiet=True)


def test_a_baseline_takes_single_responses(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b", "reward": 1.0}
    objective = RewardWeighted(baseline=0.0)
    result = Trainer(
        model=toy_model(), objective=objective, data=[row], output_dir=tmp_path / "run", quiet=True
    ).train()
    assert math.isfinite(result.metrics["loss"])
