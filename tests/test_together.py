"""benchmarks/together.py: its stages run, what it says is kept, and a run that does not hold ends with 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import modalign
import together
from modalign.world.ensemble import ensemble_settings

#: By stage how many of 100 responses do everything that was asked.
HITS = {"before": 50, "dpo": 75, "control": 30, "words": 52}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcomes(**hits: int) -> together.Outcomes:
    said = {**HITS, **hits}
    return {
        stage: {name: [at < said[stage] for at in range(100)] for name in together.ASKED} for stage in together.STAGES
    }


def test_a_scaled_down_run_measures_every_stage_and_is_kept(tmp_path: Path) -> None:
    config = ensemble_settings(sft_steps=1, dpo_steps=1, samples=6, batch_size=2)
    found = together.run(tmp_path / "run", config)
    for stage in together.STAGES:
        assert found[stage].keys() == {*together.ASKED}
        assert all(len(values) == 6 for values in found[stage].values())
    assert together.run(tmp_path / "run", config) == found
    start = tmp_path / "run" / "start-words"
    assert not (start.parent / "before" / "final").samefile(start)
    described = json.loads((start / together.COMPOSITION).read_text())
    assert [one["weight"] for one in described["decoders"].values()] == [0.0, 0.0, 0.0]
    assert str(modalign.load(start).describe()) == str(modalign.load(start.parent / "before" / "final").describe())


def test_what_holds_is_said_of_the_pooled_seeds() -> None:
    assert together.broken(together.pooled([outcomes(), outcomes()])) == []
    # four more of 100 are within chance: 1.96 sqrt(.04 - .04^2) / 10 = .038, but two are not beyond it
    assert together.broken(outcomes(dpo=52))[:1] == ["DPO raises whole"]
    assert together.broken(outcomes(control=60)) == [f"imitation raises no {name}" for name in together.ASKED]
    assert together.broken(outcomes(words=75)) == [f"DPO on words alone raises {name} less" for name in together.MEDIA]


def test_what_was_not_asked_of_a_response_counts_nowhere() -> None:
    one = {stage: {**said, "text": [None, *said["text"][1:]]} for stage, said in outcomes().items()}
    assert together.gain(one, "dpo", "before", "text")[0] == pytest.approx(25 / 99)


@pytest.mark.parametrize(("hits", "holds"), [({}, True), ({"dpo": 51}, False), ({"control": 70}, False)])
def test_the_command_ends_with_1_where_a_claim_does_not_hold(
    hits: dict[str, int], holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(together, "run", lambda *_: outcomes(**hits))
    monkeypatch.setattr(sys, "argv", ["together.py", "--seeds", "0,1"])
    with pytest.raises(SystemExit) as ended:
        together.main()
    assert (ended.value.code == 0) is holds
    said = capsys.readouterr().out
    assert said.count("| dpo |") == 3  # each seed, and both
    assert "| dpo - before | " in said


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_one_preference_helps_every_modality_and_imitation_none(tmp_path: Path) -> None:
    found = [
        together.run(tmp_path / str(seed), ensemble_settings(seed=seed, samples=together.SAMPLES)) for seed in (0, 1, 2)
    ]
    assert together.broken(together.pooled(found)) == []
