"""Several modalities in one response: what is asked, what is wrong with what, and what the oracle says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.data import read
from modalign.registry import registry
from modalign.roles import Depiction
from modalign.world.concept import Concept
from modalign.world.reward import OracleReward
from modalign.world.together import Harmony, Seen, ask_in, asked_in, harmony, judge_together

SIZE = 120


def rows(kind: str, size: int = SIZE, **settings: object) -> list[Comparison]:
    return list(read("oracle", split=f"together/{kind}", limit=size, **settings))


def depictions() -> Mapping[str, Depiction]:
    return registry.depictions()


def seen(row: Comparison, at: int = 0) -> Seen:
    found = judge_together(row.prompt, row.responses[at], depictions())
    assert found is not None
    return found


def measured(kind: str, at: int = 0) -> Harmony:
    return harmony([seen(row, at) for row in rows(kind)])


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_request_names_modalities_in_an_order_and_can_be_read_back() -> None:
    orders: set[tuple[str, ...]] = set()
    for row in rows("prompts"):
        said = row.prompt[0].parts[0].value
        request = asked_in(str(said))
        assert request is not None
        concept, modalities = request
        assert ask_in(concept, modalities) == said
        assert len(modalities) == len(set(modalities)) >= 2
        orders.add(modalities)
    assert len(orders) > 30  # of 4 in any order there are 60


def test_what_is_as_asked_is_right_in_every_way() -> None:
    found = measured("clean")
    assert found.selection.value == found.agreement.value == found.whole.value == found.reward == 1.0
    assert found.following.keys() == {"text", "image", "audio", "video"}
    assert all(rate.value == 1.0 for rate in found.following.values())


def test_the_rejected_has_one_defect_more() -> None:
    for kind in ("clean", "shared-defect"):
        pairs = [(seen(row, 0), seen(row, 1)) for row in rows(kind)]
        assert all(better.reward > worse.reward for better, worse in pairs)
        assert measured(kind, 1).whole.hits == 0
    # in shared-defect pairs the chosen is wrong too: imitating it teaches a mistake
    assert measured("shared-defect").whole.hits == 0
    kinds = {better.selected for better, _ in pairs}
    assert kinds == {True, False}


def test_both_of_a_shared_defect_pair_have_the_first_defect() -> None:
    for row in rows("shared-defect"):
        better, worse = seen(row, 0), seen(row, 1)
        kept = [name for name, right in better.followed.items() if not right and name in worse.found]
        assert all(not worse.followed[name] for name in kept)
        if not better.selected:
            assert not worse.selected


def test_a_share_of_the_examples_has_a_mistake() -> None:
    found = harmony([seen(row) for row in rows("sft", 400)])
    assert 0.45 <= found.whole.value <= 0.65  # 55 % have none
    assert found.selection.value < 1.0


def test_rows_are_the_same_however_many_are_made_and_concepts_are_held_out() -> None:
    assert rows("clean", 3) == rows("clean", 30)[:3]
    assert rows("clean", 3) != rows("clean", 3, revision="1")
    taught = {asked_in(str(row.prompt[0].parts[0].value)) for row in rows("prompts", 400)}
    tested = {asked_in(str(row.prompt[0].parts[0].value)) for row in rows("prompts-test", 400)}
    assert not {(one[0].key, frozenset(one[1])) for one in taught if one} & {
        (one[0].key, frozenset(one[1])) for one in tested if one
    }


# --- verdicts ------------------------------------------------------------------------------------------------------


CONCEPT = Concept(count=2, shape="circle", colour="red", side="left", pitch="low", time="early")


def said(*parts: tuple[str, Concept]) -> Response:
    known = depictions()
    made = tuple(known[name].depict(concept.only(known[name].attributes), seed=3) for name, concept in parts)
    return Response(messages=(Message(role="assistant", parts=made),))


def verdict(response: Response) -> Seen:
    prompt = [Message(role="user", parts=(Part(modality="text", value=ask_in(CONCEPT, ["text", "image", "audio"])),))]
    found = judge_together(prompt, response, depictions())
    assert found is not None
    assert OracleReward()([prompt], [response]) == [found.reward]
    return found


def test_a_part_that_is_wrong_is_of_its_modality_and_disagrees() -> None:
    three = replace(CONCEPT, count=3)
    found = verdict(said(("text", CONCEPT), ("image", CONCEPT), ("audio", three)))
    assert found.selected
    assert found.followed == {"text": True, "image": True, "audio": False}
    assert found.agreed is False
    # of the sound two of three attributes are right, and so not all
    assert found.reward == pytest.approx(((1 + 1 + (2 / 3 + 0) / 2) / 3 + 1 + 0) / 3)


def test_parts_that_are_wrong_alike_agree() -> None:
    three = replace(CONCEPT, count=3)
    found = verdict(said(("text", three), ("image", three), ("audio", three)))
    assert found.followed == {"text": False, "image": False, "audio": False}
    assert found.agreed is True


@pytest.mark.parametrize(
    "names",
    [("text", "image"), ("image", "text", "audio"), ("text", "image", "audio", "audio"), ("text", "image", "video")],
)
def test_another_selection_is_said(names: tuple[str, ...]) -> None:
    moving = replace(CONCEPT, motion="up")
    found = verdict(said(*((name, moving if name in ("text", "video") else CONCEPT) for name in names)))
    assert not found.selected
    assert found.followed["image"]
    assert found.followed["audio"] is ("audio" in names)
    assert found.agreed is ("audio" in names)


def test_what_is_unreadable_follows_nothing_and_agrees_with_nothing() -> None:
    whole = said(("text", CONCEPT), ("image", CONCEPT), ("audio", CONCEPT))
    parts = whole.messages[0].parts
    blank = replace(parts[1], value=parts[1].value * 0)  # pyright: ignore[reportOperatorIssue]
    found = verdict(Response(messages=(Message(role="assistant", parts=(parts[0], blank, parts[2])),)))
    assert found.followed == {"text": True, "image": False, "audio": True}
    assert found.agreed is False


def test_agreement_is_nothing_where_no_two_parts_carry_the_same() -> None:
    concept = Concept(colour="red", motion="up", pitch="low", time="early", count=1)
    prompt = [Message(role="user", parts=(Part(modality="text", value=ask_in(concept, ["audio", "video"])),))]
    found = judge_together(prompt, said(("audio", concept), ("video", concept)), depictions())
    assert found is not None
    assert found.agreed is None
    assert found.reward == 1.0


@pytest.mark.parametrize(
    "request_",
    ["Show me this: count two.", "Show me this in smell: count two.", "Show me this in text, image: hats two."],
)
def test_what_is_no_such_request_has_no_verdict(request_: str) -> None:
    prompt = [Message(role="user", parts=(Part(modality="text", value=request_),))]
    assert judge_together(prompt, said(("text", CONCEPT)), depictions()) is None
