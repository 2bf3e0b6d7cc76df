"""Concepts: what they can say, which are held out, and what it means to match."""

from __future__ import annotations

from random import Random

import pytest

from modalign.world import VALUES, Concept, ask, asked, concepts, match, split

EVERYTHING = frozenset(VALUES)


def test_a_value_that_no_attribute_has_is_refused_by_name():
    with pytest.raises(ValueError, match="colour is one of red, green, blue, yellow, not 'mauve'"):
        Concept(colour="mauve")


def test_there_are_as_many_concepts_as_combinations():
    # 3 counts * 3 shapes * 4 colours * 2 sides * 4 motions * 2 pitches * 2 times * 2 = 2304
    assert len(set(concepts(EVERYTHING))) == 2304


@pytest.mark.parametrize(
    "names", [EVERYTHING, {"count", "pitch", "time"}, {"colour", "motion"}, {"count", "shape", "colour", "side"}]
)
def test_training_and_held_out_concepts_share_nothing_and_leave_nothing_out(names):
    train, test = split(frozenset(names))
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(concepts(names))
    assert len(test) == -(-len(set(concepts(names))) // 4)
    for name in names:  # every value can be learned
        assert {concept.said[name] for concept in train} == set(VALUES[name])


@pytest.mark.parametrize("name", list(VALUES))
def test_a_violation_changes_one_attribute_and_nothing_else(name):
    random = Random(0)
    for concept in random.sample(list(concepts(EVERYTHING)), 50):
        right = match(concept, concept.violate(name, random))
        assert [other for other, same in right.items() if not same] == [name]


def test_unreadable_matches_nothing_and_what_was_not_asked_for_does_not_count():
    concept = Concept(count=2, side="left")
    assert match(concept, None) == {"count": False, "side": False}
    assert all(match(concept, Concept(count=2, side="left", colour="red")).values())


def test_parts_that_contradict_each_other_say_nothing_together():
    assert Concept(count=2).merge(Concept(count=3)) is None
    assert Concept(count=2).merge(Concept(count=2, pitch="low")) == Concept(count=2, pitch="low")


def test_every_request_is_read_back():
    for concept in concepts(EVERYTHING):
        assert asked(ask(concept)) == concept


@pytest.mark.parametrize(
    "request_", ["", "Show me this: .", "Show me this: count five.", "Show me this: count two, count two.", "Hello."]
)
def test_a_request_of_another_kind_asks_for_nothing(request_):
    assert asked(request_) is None
