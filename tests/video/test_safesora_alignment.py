"""SafeSora's use, by commands: a reward and a cost model of its pairs, a generator's own clips ranked by both, DPO."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from modalign.cli import main
from modalign.comparison import Comparison
from modalign.data import check, read
from modalign.data.ordering import EVEN
from modalign.registry import registry
from modalign.reward import RewardModel
from modalign.training.storage.metricslog import read_metrics
from modalign_video.judge import Sizes, save_judge
from modalign_video.safesora_sample import sample


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 0


def loss_of(run: Path) -> float:
    return next(row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SafeSora's files, a generator of clips, and a reward and a cost model of the pairs."""
    folder = tmp_path_factory.mktemp("safesora")
    painter = registry.depiction("video").student(folder / "painter")
    assert painter is not None
    pairs = sample(folder / "data", "pairs", 4)
    sample(folder / "data", "prompts", 3)
    judge = save_judge(folder / "judge", Sizes(size=16, patch=8, width=32, layers=1))
    flags = ("--data", pairs, "--max_steps", 2, "--learning_rate", "1e-2", "--seed", 1)
    command(
        "train",
        "reward",
        "--model",
        judge,
        *flags,
        "--output_dir",
        folder / "reward",
        "--objective.dimensions",
        "helpfulness",
    )
    command(
        "train",
        "cost",
        "--model",
        judge,
        *flags,
        "--output_dir",
        folder / "cost",
        "--objective.preference",
        "harmlessness",
    )
    return folder


def sampled(there: Path, name: str, *flags: object) -> list[Comparison]:
    output = there / f"{name}.jsonl"
    command(
        "sample", "--model", there / "painter", "--data", there / "data/eval-prompt.json.gz", "--output", output,
        "--reward", there / "reward/final", "--cost", there / "cost/final", "--count", 3,
        "--num_inference_steps", 2, *flags,
    )  # fmt: skip
    return list(read(output))


def costs_of(there: Path, pair: Comparison) -> tuple[list[float], list[float]]:
    """What the two models say of chosen and rejected as they lie in files."""
    worth = [RewardModel.load(there / "reward/final").judge([pair.prompt], [one])[0] for one in pair.responses]
    harm = [RewardModel.load(there / "cost/final").judge([pair.prompt], [one])[0] for one in pair.responses]
    return [one["helpfulness"] for one in worth], [one["cost"] for one in harm]


def test_a_generator_learns_from_what_it_made_itself_under_a_weighted_cost(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = sampled(there, "weighted", "--cost_weight", 3)
    said = capsys.readouterr().out
    assert "\nmean cost " in said
    assert "at most" not in said
    for pair in pairs:
        worth, harm = costs_of(there, pair)
        for one, helpful, cost in zip(pair.responses, worth, harm, strict=True):
            # files are compressed, so that what was judged in memory is judged a little otherwise
            assert one.reward == pytest.approx(helpful - 3 * cost, abs=0.05)
            assert one.scores["cost"] == pytest.approx(cost, abs=0.02)
        assert pair.margin == pytest.approx((pair.chosen.reward or 0.0) - (pair.rejected.reward or 0.0))
        assert (pair.margin or 0.0) > 0
    command(
        "train", "dpo", "--model", there / "painter", "--model.adapter.r", 2, "--data", there / "weighted.jsonl",
        "--max_steps", 1, "--per_device_train_batch_size", len(pairs), "--output_dir", there / "dpo",
    )  # fmt: skip
    assert loss_of(there / "dpo") == pytest.approx(math.log(2), rel=1e-9)  # at adapter start


def test_under_a_limit_what_keeps_it_is_chosen(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = sampled(there, "none", "--cost_limit", 1e6)
    assert all((one.chosen.reward or 0.0) > (one.rejected.reward or 0.0) for one in every)
    costs = sorted(response.scores["cost"] for one in every for response in one.responses)
    limit = (costs[0] + costs[1]) / 2  # only the cheapest of all keeps it
    capsys.readouterr()
    pairs = sampled(there, "limited", "--cost_limit", limit)
    said = capsys.readouterr().out
    kept = sum(one.chosen.scores["cost"] <= limit for one in pairs)
    assert f"cost at most {limit:g}: " in said
    assert f", {kept} of {len(pairs)} chosen, 0 of {len(pairs)} rejected" in said
    assert kept
    for one in pairs:
        assert one.rejected.scores["cost"] > limit
        assert one.margin is None
        assert one.chosen.scores["cost"] <= one.rejected.scores["cost"]
    rows = [json.loads(line) for line in (there / "limited.jsonl").read_text().splitlines()]
    assert all(row["chosen_scores"].keys() == row["rejected_scores"].keys() == {"cost"} for row in rows)


def test_a_cost_counts_in_one_way(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["sample", "--model", str(there / "painter"), "--prompt", "Two circles", "--output", str(there / "x.jsonl")]
    asked += ["--reward", "oracle"]
    for flags, says in (
        (["--cost", "oracle"], "a cost counts in one of two ways; found: no weight and no limit"),
        (["--cost", "oracle", "--cost_limit", "0", "--cost_weight", "1"], "found: a weight and a limit"),
        (["--cost_limit", "0"], "cost_limit: nothing says what costs; found: no --cost"),
        (["--cost", "oracle", "--cost_weight", "0"], "a cost counts with a weight above 0"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*asked, *flags])
        assert end.value.code == 2
        assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ({"helpfulness": 1.0}, "helpfulness"),
        ({"harmlessness": 1.0}, "harmlessness"),
        ({"helpfulness": 1.0, "harmlessness": 3.0}, "harmlessness"),
    ],
)
def test_published_pairs_in_any_order_train_a_generator(there: Path, weights: dict[str, float], order: str) -> None:
    file = there / "data/config-train.json.gz"
    data = read(file, preference_weights=weights)
    assert [one.preferences[order] for one in data] == [1.0] * len(data)
    run = there / f"run-{'-'.join(weights)}"
    flags = [word for name, weight in weights.items() for word in (f"--data.preference_weights.{name}", weight)]
    command(
        "train", "dpo", "--model", there / "painter", "--model.adapter.r", 2, "--data", file, *flags,
        "--max_steps", 1, "--output_dir", run,
    )  # fmt: skip
    assert loss_of(run) == pytest.approx(math.log(2), rel=1e-9)


def test_pairs_whose_dimensions_disagree_evenly_are_counted(tmp_path: Path) -> None:
    file = sample(tmp_path, "pairs", 8)
    weights = {"helpfulness": 1.0, "harmlessness": 1.0}
    differ = Counter(one.preferences["harmlessness"] for one in read(file))
    report = check(read(file, preference_weights=weights))
    assert (report.skipped, report.good) == ({EVEN: differ[0.0]}, differ[1.0])
    assert 0 < differ[0.0] < 8
    (warning,) = check(read(file, preference_weights={"helpfulness": 2.0, "harmlessness": 1.0})).warnings
    assert warning == f"{differ[0.0]} pairs are ordered against harmlessness"
