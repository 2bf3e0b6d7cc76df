"""The quickstart end to end: scaled down in the default suite, whole and winning when asked for with `-m slow`."""

from __future__ import annotations

import json

import pytest

from modalign.cli.quickstart import quickstart
from modalign.data import read
from modalign.errors import ConfigError
from modalign.training.rollout import SampledPairs
from modalign.world.demonstration import demonstrate, settings


def test_a_scaled_down_quickstart_leaves_its_runs_a_report_and_three_commands(tmp_path, capsys):
    folder = tmp_path / "quickstart"
    assert quickstart(output_dir=folder, sft_steps=10, dpo_steps=3, samples=16, quiet=True) == 0
    for name in ("before", "dpo", "control"):
        assert (folder / name / "metrics.jsonl").is_file()
        assert (folder / name / "final" / "model.safetensors").is_file()
    results = json.loads((folder / "results.json").read_text())
    assert set(results["stages"]) == {"before", "dpo", "control"}
    assert results["won"] is False  # ten steps teach nothing, and the result says so
    assert "did NOT beat" in (folder / "report.html").read_text()
    said = capsys.readouterr().out
    assert "did NOT beat" in said
    for command in ("modalign train dpo", "modalign data check", "modalign plugins"):
        assert command in said


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="new or an empty folder"):
        quickstart(output_dir=tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_setting_that_cannot_be_is_refused_by_name():
    with pytest.raises(ConfigError, match="sft_steps"):
        settings(sft_steps=0)


def test_pairs_of_its_own_answer_prompts_that_do_not_measure_it(tmp_path, monkeypatch):
    asked = []

    def told(model, prompts, *args, **kwargs):
        asked.extend(prompts)
        return SampledPairs(pairs=tuple(read("oracle", split="shared-defect", limit=2)), dropped={}, rewards=())

    monkeypatch.setattr("modalign.world.demonstration.sample_pairs", told)
    found = demonstrate(
        tmp_path / "run",
        settings(sft_steps=1, dpo_steps=1, samples=6, own_prompts=5, batch_size=2),
        say=lambda _: None,
        quiet=True,
    )
    measured = {str(one.origin) for one in found.prompts}
    assert len(measured) == 6
    assert len({str(one.origin) for one in asked} - measured) == 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dpo_beats_the_start_and_the_control_by_more_than_chance(seed, tmp_path):
    found = demonstrate(tmp_path / "run", settings(seed=seed), say=print, quiet=True)
    before, dpo, control = (stage.measure.accuracy for stage in found.stages)
    assert dpo.low > before.high
    assert control.high < before.low
    assert found.won
