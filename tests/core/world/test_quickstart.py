"""The quickstart end to end: scaled down in the default suite, whole and winning when asked for with `-m slow`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import torch

import modalign
from modalign.cli.quickstart import quickstart
from modalign.data import read
from modalign.errors import ConfigError
from modalign.registry import registry
from modalign.training.rollout import SampledPairs
from modalign.world.demonstration import demonstrate, settings
from modalign.world.ensemble import ensemble_settings, rehearse, taught
from modalign.world.harmony import harmony, judge_together

COMMANDS = ("modalign train dpo", "modalign data check", "modalign plugins")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_scaled_down_quickstart_aligns_all_modalities_and_shows_them(tmp_path, capsys):
    folder = tmp_path / "quickstart"
    assert quickstart(output_dir=folder, sft_steps=2, dpo_steps=1, samples=12, quiet=True) == 0
    for name in ("before", "dpo", "control"):
        assert (folder / name / "metrics.jsonl").is_file()
        final = modalign.load(folder / name / "final")
        assert final.decoders.keys() == {"text", "image", "audio", "video"}
        assert final.encoders.keys() == {"image", "audio", "video"}
    results = json.loads((folder / "results.json").read_text())
    asked = {"whole", "selection", "agreement", "text", "image", "audio", "video"}
    assert results["stages"].keys() == {"before", "dpo", "control"}
    assert all(stage.keys() == {*asked, "seconds"} for stage in results["stages"].values())
    assert results["won"] is False  # one step aligns nothing, and the result says so
    report = (folder / "report.html").read_text()
    said = capsys.readouterr().out
    assert "did NOT beat" in report
    assert "did NOT beat" in said
    assert all(command in said for command in COMMANDS)
    # pictures, players and the model as a drawing, in one file that fetches nothing
    for tag in ("<img", "<audio", "<video", "decoders.audio</tspan>", "parts asked for", "as shown"):
        assert tag in report, tag
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", report)


def test_the_start_that_ships_answers_in_every_modality_and_reads_media_in_the_prompt(tmp_path):
    depictions = taught(tmp_path)
    assert depictions.keys() == {"text", "image", "audio", "video"}
    rows = read("oracle", split="together/prompts", limit=36, revision="7")
    responses = modalign.load(tmp_path).generate(
        [row.prompt for row in rows], temperature=1.0, max_new_tokens=40, batch_size=36, seed=0
    )
    found = [judge_together(row.prompt, one, depictions) for row, one in zip(rows, responses, strict=True)]
    said = harmony([one for one in found if one is not None])
    assert said.selection.value > 0.9
    assert all(rate.value > 0.3 for rate in said.following.values()), said.following  # by chance 1 in 12 to 1 in 72
    media = [len(row.prompt[0].parts) == 2 for row in rows]
    shown = harmony([one for one, there in zip(found, media, strict=True) if there and one is not None])
    assert 10 < shown.selection.count < 26
    assert shown.whole.value > 0.15


def test_without_every_plugin_words_alone_are_aligned_and_it_is_said(tmp_path, capsys, monkeypatch):
    every = registry.depictions()
    monkeypatch.setattr(registry, "depictions", lambda: {"text": every["text"], "image": every["image"]})
    folder = tmp_path / "quickstart"
    assert quickstart(output_dir=folder, sft_steps=10, dpo_steps=3, samples=16, quiet=True) == 0
    said = capsys.readouterr().out
    assert "words alone instead" in said
    assert "pip install 'modalign[all]'" in said
    assert json.loads((folder / "results.json").read_text())["config"]["modality"] is None


def test_one_modality_alone_starts_from_nothing(tmp_path, capsys):
    folder = tmp_path / "quickstart"
    assert quickstart(output_dir=folder, modality="text", sft_steps=10, dpo_steps=3, samples=16, quiet=True) == 0
    for name in ("before", "dpo", "control"):
        assert (folder / name / "metrics.jsonl").is_file()
        assert (folder / name / "final" / "model.safetensors").is_file()
    results = json.loads((folder / "results.json").read_text())
    assert set(results["stages"]) == {"before", "dpo", "control"}
    assert results["won"] is False  # ten steps teach nothing, and the result says so
    assert "did NOT beat" in (folder / "report.html").read_text()
    said = capsys.readouterr().out
    assert "did NOT beat" in said
    assert all(command in said for command in COMMANDS)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="new or an empty folder"):
        quickstart(output_dir=tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_setting_that_cannot_be_is_refused_by_name():
    for made in (settings, ensemble_settings):
        with pytest.raises(ConfigError, match="sft_steps"):
            made(sft_steps=0)


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_preference_beats_the_start_and_the_control_in_all_modalities(tmp_path):
    found = rehearse(tmp_path / "run", ensemble_settings(), say=print, quiet=True)
    assert found is not None
    assert found.won
    for name in found.dpo.harmony.following:
        assert found.dpo.gain(found.before, name)[0] > 0, name
