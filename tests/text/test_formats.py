"""The row formats: TRL's shapes mean here what they mean there, and every row becomes what it says."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.comparison import Comparison, Origin
from modalign.content import RAW, Message
from modalign.data import read
from modalign.data.messages import shared_turns
from modalign.errors import DataError
from modalign.registry import registry
from modalign_text import rows
from modalign_text.formats import HHRLHF, Messages, Preference, PromptCompletion, PromptOnly, Unpaired, dialogue

ORIGIN = Origin(file="rows.jsonl", row=1)
ASK = {"role": "user", "content": "2+2?"}
YES, NO = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5"}


def _said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(one.role, "".join(str(part.value) for part in one.parts)) for one in messages]


def _pair(row: Mapping[str, object]) -> Comparison:
    return Preference().comparison(row, ORIGIN, root=None)


def _all(found: Comparison) -> list[list[tuple[str, str]]]:
    return [_said(found.prompt), *(_said(one.messages) for one in found.responses)]


CONVERSATION = [[("user", "2+2?")], [("assistant", "4")], [("assistant", "5")]]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "2+2?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "2+2?", "chosen": [ASK, YES], "rejected": [ASK, NO], "messages": [ASK, YES]},
        {"prompt": [ASK], "chosen": "4", "rejected": "5"},
        {"prompt": [ASK | {"content": [{"type": "text", "text": "2+2?"}]}], "chosen": [YES], "rejected": [NO]},
        {"prompt": [ASK | {"name": None}], "chosen": [YES], "rejected": [NO], "source": "x"},
    ],
)
def test_conversational_preferences_mean_the_same_in_every_shape(row: dict[str, object]) -> None:
    assert _all(_pair(row)) == CONVERSATION


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " loud."},
        {"chosen": "The sky is blue.", "rejected": "The sky is loud."},
    ],
)
def test_plain_preferences_continue_their_prompt_outside_any_template(row: dict[str, object]) -> None:
    assert _all(_pair(row)) == [[(RAW, "The sky is")], [(RAW, " blue.")], [(RAW, " loud.")]]


def test_a_continuation_is_never_empty_where_one_begins_with_all_of_the_other() -> None:
    assert _all(_pair({"chosen": "abc", "rejected": "ab"})) == [[(RAW, "a")], [(RAW, "bc")], [(RAW, "b")]]


@settings(max_examples=200, deadline=None)
@given(
    prompt=st.text("ab ", min_size=1, max_size=6), chosen=st.text("ab ", max_size=4), other=st.text("ab ", max_size=4)
)
def test_the_implicit_prompt_is_trls(prompt: str, chosen: str, other: str) -> None:
    trl = pytest.importorskip("trl.data_utils")
    row = {"chosen": f"x{prompt}{chosen}", "rejected": f"x{prompt}{other}"}
    theirs = trl.extract_prompt(row)
    try:
        ours = _all(_pair(row))
    except DataError as error:
        # what TRL lets through: a response of nothing, or of white space
        assert error.what == "an empty response"  # noqa: PT017 - only some raise
        assert not theirs["chosen"].strip() or not theirs["rejected"].strip()
        return
    assert ours == [[(RAW, theirs[name])] for name in ("prompt", "chosen", "rejected")]


TURN = st.sampled_from([ASK, YES, NO, {"role": "tool", "content": "x"}])


@settings(max_examples=200, deadline=None)
@given(shared=st.lists(TURN, min_size=1, max_size=3), tails=st.tuples(*[st.lists(TURN, min_size=1, max_size=2)] * 2))
def test_the_implicit_prompt_of_conversations_is_trls_wherever_both_answer_it(
    shared: list[dict[str, str]], tails: tuple[list[dict[str, str]], list[dict[str, str]]]
) -> None:
    trl = pytest.importorskip("trl.data_utils")
    chosen, rejected = shared + tails[0], shared + tails[1]
    theirs = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
    heads = [theirs[name][0]["role"] for name in ("chosen", "rejected") if theirs[name]]
    if heads == ["assistant", "assistant"] and theirs["prompt"]:
        assert chosen[: shared_turns(chosen, rejected, "rejected")] == theirs["prompt"]
    elif "user" in heads and "tool" not in heads:
        with pytest.raises(DataError, match="do not answer the same prompt"):
            shared_turns(chosen, rejected, "rejected")


def test_a_tools_output_goes_with_the_call_it_answers() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    outputs = [{"role": "tool", "content": said} for said in ("4", "5")]
    found = _pair({"chosen": [ASK, call, outputs[0], YES], "rejected": [ASK, call, outputs[1], NO]})
    assert [role for role, _ in _said(found.prompt)] == ["user"]
    assert [role for role, _ in _said(found.chosen.messages)] == ["assistant", "tool", "assistant"]
    assert found.chosen.messages[0].extra["tool_calls"] == call["tool_calls"]


def test_further_fields_of_a_message_are_kept_for_the_template() -> None:
    found = _pair({"prompt": [ASK | {"name": "ann"}], "chosen": [YES], "rejected": [NO]})
    assert dict(found.prompt[0].extra) == {"name": "ann"}


def test_optional_columns_of_a_pair() -> None:
    row = {"prompt": "2+2=", "chosen": "4", "rejected": "5", "margin": 2, "weight": 0.5, "id": 7}
    more = {"chosen_rating": 9, "rejected_rating": 1.5, "chosen_scores": {"truth": 1, "tone": None}}
    found = _pair(row | more | {"rejected_scores": {"truth": 0}, "preferences": {"truth": 0.9}})
    assert (found.margin, found.weight, found.id, found.origin) == (2.0, 0.5, "7", ORIGIN)
    assert (found.chosen.reward, found.rejected.reward) == (9.0, 1.5)
    assert (dict(found.chosen.scores), dict(found.rejected.scores)) == ({"truth": 1.0}, {"truth": 0.0})
    assert dict(found.preferences) == {"truth": 0.9}


def test_unpaired_rows_have_a_label_and_what_was_said_of_them() -> None:
    row = {"prompt": "2+2=", "completion": "5", "label": False, "reward": -1, "scores": {"truth": 0}}
    found = Unpaired().comparison(row | {"critique": "wrong", "refinement": "4"}, ORIGIN, root=None)
    (response,) = found.responses
    assert (found.kind, response.label, response.reward, dict(response.scores)) == (
        "unpaired",
        False,
        -1.0,
        {"truth": 0.0},
    )
    assert (response.critique, response.refinement) == ("wrong", "4")


def test_examples_to_imitate_have_no_label() -> None:
    found = PromptCompletion().comparison({"prompt": [ASK], "completion": [YES]}, ORIGIN, root=None)
    assert _all(found) == CONVERSATION[:2]
    assert found.responses[0].label is None
    with pytest.raises(DataError, match="field=label: no format or plugin claims"):
        PromptCompletion().comparison({"prompt": "a", "completion": "b", "label": True}, ORIGIN, root=None)


def test_the_response_of_a_conversation_is_what_follows_the_last_user() -> None:
    system = {"role": "system", "content": "Be brief."}
    tool = {"role": "tool", "content": "4"}
    found = Messages().comparison({"messages": [system, ASK, NO, ASK, YES, tool, YES]}, ORIGIN, root=None)
    assert [role for role, _ in _said(found.prompt)] == ["system", "user", "assistant", "user"]
    assert [role for role, _ in _said(found.responses[0].messages)] == ["assistant", "tool", "assistant"]


def test_prompts_have_no_response() -> None:
    found = PromptOnly().comparison({"prompt": [ASK]}, ORIGIN, root=None)
    assert (found.kind, found.responses, _said(found.prompt)) == ("prompt", (), [("user", "2+2?")])


START = "\n\nHuman: Hello!\n\nAssistant: Hi. Human: ok\n\nHuman: 2+2?\n\nAssistant:"


def test_dialogues_become_conversations() -> None:
    found = HHRLHF().comparison({"chosen": f"{START} 4\n", "rejected": f"{START} 5"}, ORIGIN, root=None)
    prompt = [("user", "Hello!"), ("assistant", "Hi. Human: ok"), ("user", "2+2?")]
    assert _all(found) == [prompt, [("assistant", "4")], [("assistant", "5")]]


@pytest.mark.parametrize(
    ("chosen", "rejected", "field"),
    [
        (f"{START} 4", f"{START}", "rejected"),
        (f"{START} 4", "\n\nHuman: 3+3?\n\nAssistant: 6", r"rejected[0]"),
        (f"{START} 4", f"{START} 5\n\nHuman: no", "rejected"),
        ("\n\nHuman: a", "\n\nHuman: b", r"rejected[0]"),
        ("Human: a", "\n\nHuman: b", "chosen"),
        (3, "\n\nHuman: b", "chosen"),
    ],
)
def test_dialogues_that_are_no_pair_name_their_field(chosen: object, rejected: object, field: str) -> None:
    with pytest.raises(DataError) as caught:
        HHRLHF().comparison({"chosen": chosen, "rejected": rejected}, ORIGIN, root=None)
    assert caught.value.field == field


def test_an_empty_turn_inside_a_dialogue_is_a_turn() -> None:
    turns = dialogue("\n\nHuman: a\n\nAssistant:\n\nHuman: b\n\nAssistant: c", "chosen")
    assert turns[1] == {"role": "assistant", "content": ""}


def test_every_example_row_is_claimed_by_its_own_format_first() -> None:
    for name in registry.entries("formats"):
        made = getattr(rows, name, None)
        if made is None:
            continue
        for row in made():
            assert read([row]).format == name
            assert isinstance(read([row])[0], Comparison)
