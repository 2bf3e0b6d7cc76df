"""Questions about media: read back exactly, their pairs what their kind promises, and judged by the medium alone."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations

import pytest

from modalign.config import DataConfig
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError
from modalign.registry import registry
from modalign.world import EVERY, Concept, Questions, answer, chance, concepts, data, judge, question, questioned
from modalign.world.questions import even_split
from modalign.world.questions import read_answer as read

MODALITIES = ("image", "audio", "video")
COUNTS = {"image": 16, "audio": 60, "video": 60}  # a picture is the slowest to read


def rows(split, limit=None, revision=None):
    return data(DataConfig(path="oracle", split=split, limit=limit, revision=revision))


def said(text):
    return Response(messages=(Message(role="assistant", parts=(Part(modality="text", value=text),)),))


def medium(row):
    return row.prompt[0].parts[0]


def asked_of(row):
    names = questioned(row.prompt[0].parts[1].value)
    assert names is not None
    return names


def wrong(row, response):
    verdict = judge(row.prompt, response, registry.depictions())
    assert verdict is not None
    assert verdict.shown is not None
    return {name: verdict.shown.said[name] for name, right in verdict.right.items() if not right}


# --- words -------------------------------------------------------------------------------------------------------


def test_every_question_of_up_to_three_attributes_is_read_back_in_its_order():
    for size in (1, 2, 3):
        for names in permutations(EVERY, size):
            assert questioned(question(names)) == names


@pytest.mark.parametrize(
    "text", ["", "?", "How many are there", "How many?", "How many are there and how many are there?", "Show me this."]
)
def test_what_is_no_question_of_the_world_asks_for_nothing(text):
    assert questioned(text) is None


def test_every_answer_is_read_back():
    for size in (1, 2):
        for names in combinations(EVERY, size):
            for concept in concepts(names):
                assert read(answer(concept, names), names) == concept


@pytest.mark.parametrize("text", ["", "two", "two, red, left", "red, two", "two red three", "twored", "2, red"])
def test_an_answer_that_is_not_one_known_word_for_each_is_unreadable(text):
    assert read(text, ("count", "colour")) is None


def test_chance_is_the_share_of_even_guesses():
    assert chance(["count", "colour"]) == pytest.approx(1 / 12)  # 3 counts, 4 colours


# --- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_clean_pairs_are_right_and_wrong_in_one_attribute_that_was_asked_for(modality):
    for row in rows(f"about/{modality}/clean", COUNTS[modality]):
        assert wrong(row, row.chosen) == {}
        assert len(wrong(row, row.rejected)) == 1
        assert wrong(row, row.rejected).keys() <= set(asked_of(row))


@pytest.mark.parametrize("modality", MODALITIES)
def test_shared_defect_pairs_share_it_the_same_way_and_the_rejected_has_one_more(modality):
    for row in rows(f"about/{modality}/shared-defect", COUNTS[modality]):
        chosen, rejected = wrong(row, row.chosen), wrong(row, row.rejected)
        assert (len(chosen), len(rejected)) == (1, 2)
        assert chosen.items() < rejected.items()


def test_about_45_percent_of_the_sft_answers_have_exactly_one_mistake():
    found = [len(wrong(row, row.responses[0])) for row in rows("about/video/sft", 600)]
    assert set(found) == {0, 1}
    assert 0.38 < sum(found) / 600 < 0.52  # 0.45 +- 3 * sqrt(.45 * .55 / 600) = 0.45 +- 0.061


@pytest.mark.parametrize("modality", MODALITIES)
def test_media_that_are_asked_about_in_tests_show_what_none_in_training_shows(modality):
    depiction = registry.depiction(modality)
    held = {depiction.read(medium(row)) for row in rows(f"about/{modality}/prompts-test", COUNTS[modality])}
    for kind in ("sft", "clean", "shared-defect"):
        assert not held & {depiction.read(medium(row)) for row in rows(f"about/{modality}/{kind}", COUNTS[modality])}


@pytest.mark.parametrize("modality", MODALITIES)
def test_held_out_concepts_are_about_a_quarter_and_leave_no_pair_of_values_rare(modality):
    names = registry.depiction(modality).attributes
    train, test = even_split(names)
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(concepts(names))
    assert 0.2 < len(test) / (len(train) + len(test)) < 0.3
    for name in names:
        times = Counter(one.said[name] for one in train)
        assert len(times) == len(EVERY[name])
        assert max(times.values()) <= 1.5 * min(times.values())
    for two in combinations(sorted(names), 2) if len(names) > 2 else ():  # of two attributes a pair is a whole concept
        times = Counter(tuple(one.said[name] for name in two) for one in train)
        assert len(times) == len(EVERY[two[0]]) * len(EVERY[two[1]])
        assert max(times.values()) <= 2 * min(times.values())


def test_no_answer_can_be_had_from_the_question_alone():
    """Of one question every answer occurs, and none much more often than the others."""
    only = Questions(depiction=registry.depiction("video"), words="text", least=2, most=2)
    times = Counter(row.responses[0].messages[0].parts[0].value for row in only.rows("clean", 600))
    assert len(times) == 12  # 4 colours x 4 motions less the quarter that is held out
    assert max(times.values()) < 2 * 600 / 12


def test_a_row_is_the_same_however_many_are_made_and_differs_by_seed():
    assert rows("about/video/clean", 3) == rows("about/video/clean", 9)[:3]
    assert rows("about/video/clean", 9, "1") != rows("about/video/clean", 9, "0")


def test_ids_and_origins_name_every_row_once():
    found = rows("about/video/clean", 20)
    assert len({row.key for row in found}) == 20
    assert str(found[0].origin) == "oracle/about/video/clean:1"
    assert str(rows("about/video/clean-test", 1)[0].origin) == "oracle/about/video/clean-test:1"


# --- verdicts ----------------------------------------------------------------------------------------------------


def test_an_answer_is_judged_by_what_the_medium_shows():
    concept = Concept(colour="red", motion="up")
    clip = registry.depiction("video").depict(concept)
    parts = (clip, Part(modality="text", value=question(["motion", "colour"])))
    prompt = [Message(role="user", parts=parts)]
    for text, accurate in (("up, red", True), ("Up red.", True), ("up, blue", False)):
        verdict = judge(prompt, said(text), registry.depictions())
        assert verdict is not None
        assert verdict.asked == concept
        assert verdict.accurate is accurate
    for text in ("red, up", "no idea"):
        verdict = judge(prompt, said(text), registry.depictions())
        assert verdict is not None
        assert verdict.shown is None


def test_there_is_no_verdict_where_the_medium_cannot_tell():
    clip = registry.depiction("video").depict(Concept(colour="red", motion="up"))
    noise = Part(modality="video", value=clip.value.flip(0).flip(2))  # type: ignore[union-attr]
    still = Part(modality="video", value=clip.value[:1].repeat(8, 1, 1, 1))  # type: ignore[index]
    count, colour = (Part(modality="text", value=question([name])) for name in ("count", "colour"))
    for parts in ((clip, count), (still, colour), (colour,)):
        assert judge([Message(role="user", parts=parts)], said("red"), registry.depictions()) is None
    assert judge([Message(role="user", parts=(noise, colour))], said("red"), registry.depictions()) is not None


def test_an_answer_that_is_no_words_is_unreadable():
    row = rows("about/video/prompts", 1)[0]
    clip = Response(messages=(Message(role="assistant", parts=(medium(row),)),))
    verdict = judge(row.prompt, clip, registry.depictions())
    assert verdict is not None
    assert verdict.shown is None


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("about/clean", "questions about media of which modality"),
        ("about/video/dirty", "no split 'about/video/dirty'"),
        ("about/video/more/clean", "no split"),
        ("about//clean", "no split"),
    ],
)
def test_a_split_that_is_none_says_which_there_are(split, says):
    with pytest.raises(ConfigError, match=says):
        rows(split, 1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attributes": frozenset({"pitch"})}, "'video' cannot show pitch"),
        ({"least": 0}, "a question asks for 1 to 2 attributes"),
        ({"least": 3}, "3 to 3 of colour, motion"),
        ({"attributes": frozenset()}, "none"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        Questions(depiction=registry.depiction("video"), words="text", **settings)


def test_a_shared_defect_needs_two_attributes():
    one = Questions(depiction=registry.depiction("video"), words="text", attributes=frozenset({"colour"}))
    with pytest.raises(ConfigError, match="two attributes"):
        one.rows("shared-defect", 1)
