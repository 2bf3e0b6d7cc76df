"""The oracle's verdicts: rates, intervals, rewards, and responses of several parts."""

from __future__ import annotations

import math

import pytest

from modalign.content import Message, Part, Response
from modalign.registry import registry
from modalign.world import Concept, Rate, Verdict, ask, judge, measure
from modalign.world.reward import OracleReward

ASKED = Concept(count=2, colour="red", pitch="low", time="late")


def words(role, text):
    return Message(role=role, parts=(Part(modality="text", value=text),))


def answer(*parts):
    return Response(messages=(Message(role="assistant", parts=parts),))


def shown(modality, **said):
    return registry.depiction(modality).depict(Concept(**said))


def test_wilson_interval_of_eight_in_ten():
    # p = .8, n = 10, z = 1.96: centre (.8 + .19207) / 1.38415 = .7167, half .2266
    rate = Rate(hits=8, count=10)
    assert (rate.low, rate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_rates_of_nothing_and_of_everything_stay_within_zero_and_one():
    assert math.isnan(Rate(hits=0, count=0).value)
    assert Rate(hits=5, count=5).high == 1.0
    assert Rate(hits=0, count=5).low == 0.0


def test_unreadable_counts_as_wrong_overall_and_in_every_attribute():
    found = measure([Verdict(asked=ASKED, shown=ASKED), Verdict(asked=ASKED, shown=None)])
    assert (found.accuracy.value, found.unreadable.value) == (0.5, 0.5)
    assert {rate.value for rate in found.attributes.values()} == {0.5}


def test_an_attribute_is_counted_only_where_it_was_asked_for():
    found = measure([Verdict(asked=Concept(count=2), shown=None), Verdict(asked=ASKED, shown=ASKED)])
    assert (found.attributes["count"].count, found.attributes["pitch"].count) == (2, 1)


def test_the_reward_is_the_mean_of_the_share_that_is_right_and_of_whether_all_is():
    # 3 of 4 right, not all: (.75 + 0) / 2 = .375
    three = Concept(count=2, colour="red", pitch="low", time="early")
    assert Verdict(asked=ASKED, shown=three).reward == 0.375
    assert Verdict(asked=ASKED, shown=ASKED).reward == 1.0
    assert Verdict(asked=ASKED, shown=None).reward == 0.0


def test_a_sentence_and_a_sound_are_judged_together():
    prompt = [words("user", ask(ASKED))]
    sentence = Part(modality="text", value="Two red things.")
    tone = shown("audio", count=2, pitch="low", time="late")
    depictions = registry.depictions()
    verdict = judge(prompt, answer(sentence, tone), depictions)
    assert verdict is not None
    assert verdict.accurate
    three = shown("audio", count=3, pitch="low", time="late")
    contradiction = judge(prompt, answer(sentence, three), depictions)
    assert contradiction is not None
    assert contradiction.shown is None


def test_a_part_of_a_modality_that_nobody_reads_is_unreadable():
    verdict = judge([words("user", ask(ASKED))], answer(Part(modality="smell", value="roses")), {})
    assert verdict is not None
    assert verdict.shown is None


def test_a_prompt_from_elsewhere_has_no_verdict_and_no_reward():
    elsewhere = [words("user", "What is the capital of France?")]
    response = answer(Part(modality="text", value="Two red things."))
    assert judge(elsewhere, response, registry.depictions()) is None
    here = [words("user", ask(Concept(count=2, colour="red")))]
    nothing, everything = OracleReward()([elsewhere, here], [response, response])
    assert math.isnan(nothing)
    assert everything == 1.0
