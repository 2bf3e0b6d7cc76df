"""ms-swift's preference rows: what they mean, the media of each side, and what is refused of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from modalign.comparison import Comparison
from modalign.data import check, read
from modalign.errors import DataError
from modalign.registry import registry

ASK = {"role": "user", "content": "2+2?"}
YES, NO = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
TOOL = {"role": "tool", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}


def _said(row: Mapping[str, object]) -> list[list[tuple[str, str]]]:
    found = read([row])[0]
    assert found.kind == "pair"
    turns = (found.prompt, found.chosen.messages, found.rejected.messages)
    return [[(one.role, "".join(str(part.value) for part in one.parts)) for one in messages] for messages in turns]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, YES], "rejected_response": "5"},
        {"messages": [ASK, YES], "rejected_response": [NO]},
        {"messages": [ASK, YES], "rejected_messages": [ASK, NO]},
        {"messages": [ASK, YES], "rejected_messages": [ASK, NO], "rejected_response": None},
        {"messages": [ASK, YES], "rejected_response": "5", "images": [], "source": "x"},
    ],
)
def test_the_last_answer_is_the_chosen_one(row: dict[str, object]) -> None:
    assert read([row]).format == "ms_swift"
    assert _said(row) == [[("user", "2+2?")], [("assistant", "4")], [("assistant", "5")]]
    assert check(read([row])).good == 1


def test_all_that_comes_before_it_is_the_prompt() -> None:
    before = [SYSTEM, ASK, NO, ASK]
    prompt = [("system", "Be brief."), ("user", "2+2?"), ("assistant", "5"), ("user", "2+2?")]
    for row in ({"rejected_response": "5"}, {"rejected_messages": [*before, NO]}):
        assert _said({"messages": [*before, YES]} | row) == [prompt, [("assistant", "4")], [("assistant", "5")]]


def test_a_response_holds_the_tools_it_called() -> None:
    rows = [{"rejected_response": "5"}, {"rejected_messages": [ASK, NO]}, {"rejected_messages": [ASK, CALL, TOOL, NO]}]
    found = [_said({"messages": [ASK, CALL, TOOL, YES]} | row) for row in rows]
    assert [[len(messages) for messages in one] for one in found] == [[1, 3, 1], [1, 3, 1], [1, 3, 3]]


def test_the_columns_of_any_pair_are_read() -> None:
    row = {"messages": [ASK, YES], "rejected_response": "5", "margin": 2, "weight": 0.5, "id": 7, "score_chosen": 9}
    found = read([row])[0]
    assert (found.margin, found.weight, found.id, found.chosen.reward) == (2.0, 0.5, "7", 9.0)


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"rejected_response": "4"}, "rejected", "chosen and rejected are the same"),
        ({"rejected_response": " "}, "rejected_response", "an empty response"),
        ({"rejected_response": 5}, "rejected_response", "expected a string or a list of messages; found: a number 5"),
        ({"rejected_response": []}, "rejected_response", "a conversation without messages"),
        (
            {"rejected_response": [NO, ASK, NO]},
            r"rejected_response\[1\].role",
            "a rejected response has messages of the assistant and of tools only; found: a string 'user'",
        ),
        ({"rejected_response": "5", "rejected_messages": [ASK, NO]}, "rejected_messages", "two columns say the reject"),
        ({"rejected_messages": "5"}, "rejected_messages", "expected a list"),
        ({"rejected_messages": [ASK]}, "rejected_messages", "expected the prompt of `messages` and an answer to it"),
        ({"rejected_messages": []}, "rejected_messages", "expected the prompt of `messages` and an answer to it"),
        (
            {"rejected_messages": [{"role": "user", "content": "3+3?"}, NO]},
            r"rejected_messages\[0\]",
            "chosen and rejected do not answer the same prompt",
        ),
        (
            {"rejected_messages": [SYSTEM, ASK, NO]},
            r"rejected_messages\[0\]",
            "do not answer the same prompt; found: message 0, .* is by a string 'system'",
        ),
        (
            {"rejected_messages": [ASK, NO, ASK, NO]},
            r"rejected_messages\[2\].role",
            "a rejected response has messages of the assistant and of tools only",
        ),
        (
            {"messages": [ASK], "rejected_response": "5"},
            r"messages\[0\].role",
            "expected a conversation that ends with the assistant's answer",
        ),
        ({"messages": [YES], "rejected_response": "5"}, r"messages\[0\].role", "ends with the assistant's answer"),
        ({"messages": [], "rejected_response": "5"}, "messages", "a conversation without messages"),
        ({"messages": "2+2?", "rejected_response": "5"}, "messages", "expected a list"),
        ({"messages": [ASK, {"role": "assistant", "content": ""}], "rejected_response": "5"}, "messages", "an empty"),
        ({"messages": [{"from": "human", "value": "2+2?"}], "rejected_response": "5"}, r"messages\[0\].role", "rename"),
        ({"rejected_response": "5", "objects": {"ref": ["a"]}}, "objects", "no format or plugin claims this column"),
        ({"rejected_response": "5", "tools": "[1]"}, "tools", "rows cannot set what the chat template is given yet"),
    ],
)
def test_a_row_that_is_wrong_names_its_field(row: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(DataError, match=rf"rows:1 field={field}.*: .*({says})"):
        read([{"messages": [ASK, YES]} | row])[0]


def test_a_row_without_the_rejected_response_names_the_column() -> None:
    rows = [{"messages": [ASK, YES], "rejected_response": said} for said in ("5", "5", None)]
    with pytest.raises(DataError, match="rows:3 field=rejected_response: a column is missing"):
        read(rows)[2]


# --- media -----------------------------------------------------------------------------------------

MEDIA = {"image": "images", "audio": "audios", "video": "videos"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of each modality, `KIND-0` to `KIND-3`."""
    folder = tmp_path_factory.mktemp("media")
    shapes: dict[str, tuple[int, ...]] = {"image": (3, 4, 4), "audio": (800,), "video": (4, 3, 16, 16)}
    for kind, shape in shapes.items():
        modality = registry.modality(kind)
        for number in range(4):
            part = modality.read({"type": kind, kind: torch.full(shape, number / 4)}, root=None)
            modality.save(part, folder / f"{kind}-{number}").rename(folder / f"{kind}-{number}")
    return folder


def _slot(kind: str) -> dict[str, object]:
    return {"type": kind}


def _asks(*content: dict[str, object]) -> dict[str, object]:
    return {"role": "user", "content": [*content, {"type": "text", "text": "which?"}]}


def _draws(*content: dict[str, object]) -> dict[str, object]:
    return {"role": "assistant", "content": [*content, {"type": "text", "text": "this"}]}


def _row(root: Path, kind: str, row: dict[str, object], *, shared: str, own: str | None = None) -> Comparison:
    """The comparison of a row with the media of these numbers."""
    columns = {f"{side}{MEDIA[kind]}": held for side, held in (("", shared), ("rejected_", own)) if held is not None}
    return read([row | {name: [f"{kind}-{one}" for one in held] for name, held in columns.items()}], root=root)[0]


def _media(found: Comparison) -> list[str]:
    """The numbers of the media in prompt, chosen and rejected."""
    places = ([part for turn in found.prompt for part in turn.parts], found.chosen.parts(), found.rejected.parts())
    return ["".join(str(part.value)[-1] for part in parts if part.modality != "text") for parts in places]


@pytest.mark.parametrize("kind", MEDIA)
def test_media_without_blocks_are_the_prompts(root: Path, kind: str) -> None:
    rows: list[dict[str, object]] = [{"rejected_response": "5"}, {"rejected_messages": [ASK, NO]}]
    for row in rows:
        assert _media(_row(root, kind, {"messages": [ASK, YES]} | row, shared="01")) == ["01", "", ""]


@pytest.mark.parametrize("kind", MEDIA)
def test_each_side_takes_its_own_media(root: Path, kind: str) -> None:
    slot = _slot(kind)
    asks, draws = _asks(slot), _draws(slot)
    rows: list[dict[str, object]] = [{"rejected_response": [draws]}, {"rejected_messages": [asks, draws]}]
    for row in rows:
        # the rejected response's alone, or behind the prompt's again, as ms-swift counts them; or one list in order
        for shared, own in (("01", "2"), ("01", "02"), ("012", None)):
            found = _row(root, kind, {"messages": [asks, draws]} | row, shared=shared, own=own)
            assert _media(found) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", MEDIA)
def test_the_prompts_media_may_be_repeated_for_the_rejected_response(root: Path, kind: str) -> None:
    slot = _slot(kind)
    for asks in (ASK, _asks(slot, slot)):
        found = _row(root, kind, {"messages": [asks, YES], "rejected_messages": [asks, NO]}, shared="01", own="01")
        assert _media(found) == ["01", "", ""]
    one = {MEDIA[kind]: f"{kind}-0", f"rejected_{MEDIA[kind]}": f"{kind}-0"}
    assert _media(read([{"messages": [ASK, YES], "rejected_response": "5"} | one], root=root)[0]) == ["0", "", ""]


def test_a_prompt_with_other_media_is_another_prompt(root: Path) -> None:
    asks = _asks(_slot("image"))
    for question in (ASK, asks):
        with pytest.raises(
            DataError, match=r"field=rejected_images\[0\]: chosen and rejected do not answer the same pro"
        ):
            _row(root, "image", {"messages": [question, YES], "rejected_response": "5"}, shared="0", own="1")


@pytest.mark.parametrize(
    ("shared", "own", "field", "says"),
    [
        ("0", None, r"messages\[1\].content\[0\]", "2 blocks of type 'image', 1 items in images"),
        ("01", "022", r"rejected_images\[1\]", "1 blocks of type 'image', 3 items in rejected_images"),
        ("012", "3", r"images\[2\]", "2 blocks of type 'image', 3 items in images"),
    ],
)
def test_numbers_that_do_not_fit_are_an_error(root: Path, shared: str, own: str | None, field: str, says: str) -> None:
    slot = _slot("image")
    asks, draws = _asks(slot), _draws(slot)
    row: dict[str, object] = {"messages": [asks, draws], "rejected_messages": [asks, draws]}
    with pytest.raises(DataError, match=rf"field={field}: .*{says}"):
        _row(root, "image", row, shared=shared, own=own)


@pytest.mark.parametrize("kind", MEDIA)
def test_a_mark_in_the_words_is_refused_where_a_column_holds_such_media(root: Path, kind: str) -> None:
    marked = f"<{kind}>which?"
    block = {"type": "text", "text": marked}
    rows: list[tuple[dict[str, object], str]] = [
        ({"messages": [ASK | {"content": marked}, YES], "rejected_response": "5"}, r"messages\[0\].content"),
        ({"messages": [ASK | {"content": [block]}, YES], "rejected_response": "5"}, r"messages\[0\].content\[0\]"),
        ({"messages": [ASK, YES], "rejected_response": marked}, "rejected_response"),
        (
            {"messages": [ASK, YES], "rejected_messages": [ASK, NO | {"content": marked}]},
            r"rejected_messages\[1\].content",
        ),
    ]
    for row, field in rows:
        says = f'a mark in the words is not read as the place of a medium; found: a string .<{kind}>.*"type": "{kind}"'
        with pytest.raises(DataError, match=rf"field={field}: {says}"):
            _row(root, kind, row, shared="0")
    # without such media it is words
    assert _said(rows[0][0])[0] == [("user", marked)]
