"""`modalign sample` in words: a tiny model's own responses, judged by the oracle's rule or by a reward model."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from modalign.cli import main
from modalign.data import read
from modalign.loading import load
from modalign.objectives import BradleyTerry
from modalign.reward import RewardModel
from modalign.training.heads import add_heads
from modalign_text.testing import tiny_model

PROMPTS = ("say red", "say green", "say blue")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own with a model `m`, a reward model `judge` and prompts, to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")  # what the command line sets goes with the test
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    judge = load(tiny_model("m"))
    add_heads(judge, BradleyTerry(), seed=0)
    judge.save("judge")
    Path("prompts.jsonl").write_text("".join(f"{json.dumps({'prompt': one})}\n" for one in PROMPTS))
    yield
    torch.set_num_threads(threads)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


SAMPLE = ("sample", "--model", "m", "--data", "prompts.jsonl", "--reward", "judge", "--max_new_tokens", "6")


def test_a_reward_model_picks_pairs_that_check_clean_and_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SAMPLE, "--output", "pairs.jsonl") == 0
    assert capsys.readouterr().out.startswith("3 pairs of 3 prompts in pairs.jsonl\nmean reward ")
    assert not Path("pairs_media").exists()
    judge = RewardModel.load("judge")
    for number, pair in enumerate(read("pairs.jsonl"), 1):
        assert pair.id == f"prompts.jsonl:{number}"
        best, worst = (one["reward"] for one in judge.judge([pair.prompt] * 2, pair.responses))
        assert pair.chosen.reward == pytest.approx(best, abs=1e-4)
        assert pair.rejected.reward == pytest.approx(worst, abs=1e-4)
        assert best > worst
    assert run("data", "check", "pairs.jsonl") == 0
    flags = ("--max_steps", "1", "--per_device_train_batch_size", "3", "--output_dir", "run")
    assert run("train", "dpo", "--model", "m", "--data", "pairs.jsonl", *flags) == 0


def test_equal_seeds_write_equal_pairs_and_others_do_not() -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run(*SAMPLE, "--seed", seed, "--output", f"{name}.jsonl") == 0
    assert Path("a.jsonl").read_text() == Path("b.jsonl").read_text() != Path("c.jsonl").read_text()


def test_what_cannot_give_pairs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SAMPLE, "--temperature", "0", "--output", "pairs.jsonl") == 2
    assert "every response to a prompt is the same" in capsys.readouterr().err
    assert run(*SAMPLE, "--reward_dimension", "beauty", "--output", "pairs.jsonl") == 2
    assert "judges no 'beauty'; found: dimensions: reward" in capsys.readouterr().err
    assert not Path("pairs.jsonl").exists()
