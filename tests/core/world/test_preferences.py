"""Preferences hold by construction: what the oracle reads in every row is what its kind promises."""

from __future__ import annotations

import pytest

from modalign.config import DataConfig
from modalign.errors import ConfigError, PluginError
from modalign.registry import registry
from modalign.world import data, judge
from modalign.world.preferences import World

MODALITIES = ("text", "image", "audio", "video")
COUNTS = {"text": 200, "image": 12, "audio": 40, "video": 40}  # a picture is the slowest to read


def wrong(row, response):
    verdict = judge(row.prompt, response, registry.depictions())
    assert verdict is not None
    assert verdict.shown is not None, "what the world depicts is readable"
    return {name: verdict.shown.said[name] for name, right in verdict.right.items() if not right}


def rows(split, limit=None, revision=None):
    return data(DataConfig(path="oracle", split=split, limit=limit, revision=revision))


def requested(row):
    return row.prompt[0].parts[0].value


@pytest.mark.parametrize("modality", MODALITIES)
def test_clean_pairs_are_right_and_wrong_in_one_attribute(modality):
    for row in rows(f"{modality}/clean", COUNTS[modality]):
        assert wrong(row, row.chosen) == {}
        assert len(wrong(row, row.rejected)) == 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_shared_defect_pairs_share_it_the_same_way_and_the_rejected_has_one_more(modality):
    for row in rows(f"{modality}/shared-defect", COUNTS[modality]):
        chosen, rejected = wrong(row, row.chosen), wrong(row, row.rejected)
        assert len(chosen) == 1
        assert len(rejected) == 2
        assert chosen.items() < rejected.items()


def test_about_45_percent_of_the_sft_examples_have_exactly_one_mistake():
    found = [len(wrong(row, row.responses[0])) for row in rows("sft", 1000)]
    assert set(found) == {0, 1}
    assert 0.40 < sum(found) / 1000 < 0.50  # 0.45 +- 3 * sqrt(.45 * .55 / 1000) = 0.45 +- 0.047


@pytest.mark.parametrize("kind", ["sft", "clean", "shared-defect", "prompts"])
def test_held_out_prompts_are_in_no_training_split_whatever_the_seed(kind):
    held = {requested(row) for seed in "012" for row in rows("prompts-test", 400, seed)}
    assert not held & {requested(row) for seed in "012" for row in rows(kind, 400, seed)}


def test_prompts_have_no_response():
    assert {row.kind for row in rows("prompts", 5)} == {"prompt"}


def test_a_row_is_the_same_however_many_are_made_and_differs_by_seed():
    assert rows("clean", 3) == rows("clean", 30)[:3]
    assert rows("clean", 30, "1") != rows("clean", 30, "0")


def test_ids_and_origins_name_every_row_once():
    found = rows("clean", 20)
    assert len({row.key for row in found}) == 20
    assert str(found[0].origin) == "oracle/text/clean:1"


def test_the_defaults_are_1024_clean_pairs_in_words():
    found = data(DataConfig(path="oracle"))
    assert len(found) == 1024
    assert found[0].id == "oracle/text/clean/0/0"


def test_an_unknown_split_names_the_ones_there_are():
    with pytest.raises(ConfigError, match="sft, clean, shared-defect, prompts"):
        rows("dirty")


def test_a_seed_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="seed"):
        rows("clean", 1, "main")


def test_a_modality_nobody_depicts_is_refused_by_name():
    with pytest.raises(PluginError, match="smell"):
        rows("smell/clean", 1)


def test_asking_for_what_a_modality_cannot_show_is_refused():
    with pytest.raises(ConfigError, match="'audio' cannot show colour"):
        World(depiction=registry.depiction("audio"), words="text", attributes=frozenset({"colour", "pitch"}))
