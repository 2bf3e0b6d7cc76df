"""Bad rows: each kind is one error that names file, row and field, and no terminal obeys what is in it."""

import json
from pathlib import Path

import numpy as np
import pytest

from modalign.data import read
from modalign.data.badrows import BadRow, write_bad_rows
from modalign.errors import DataError, PluginError

ASK = {"role": "user", "content": "2+2?"}
YES, NO = {"role": "assistant", "content": "4"}, {"role": "assistant", "content": "5"}
PAIR = {"prompt": [ASK], "chosen": [YES], "rejected": [NO]}
PLAIN = {"prompt": "2+2=", "chosen": "4", "rejected": "5"}
KTO = {"prompt": "2+2=", "completion": "4", "label": True}
GROUP = {"prompt": "2+2=", "responses": ["4", "5"], "rewards": [1, 0]}
TALK = {"messages": [ASK, YES]}

#: what is wrong with the row, its field, words of the message
TABLE = [
    (PLAIN | {"chosen": None}, "chosen", "a column is missing; found: null"),
    ({"prompt": "a", "chosen": "b"}, "rejected", "a column is missing; found: columns prompt, chosen"),
    (PLAIN | {"chosen": 3}, "chosen", "expected a string or a list of messages; found: a number 3"),
    (PLAIN | {"chosen": True}, "chosen", "found: a boolean True"),
    (PLAIN | {"chosen": ["4"]}, "rejected", "expected the same shape as `chosen`"),
    (PLAIN | {"chosen": {"text": "4"}}, "chosen", "found: an object with text"),
    (PLAIN | {"chosen": ""}, "chosen", "an empty response"),
    (PLAIN | {"rejected": " \n\t"}, "rejected", "an empty response"),
    (PLAIN | {"rejected": "4"}, "rejected", "chosen and rejected are the same"),
    (PLAIN | {"prompt": " "}, "prompt", "an empty prompt"),
    (PLAIN | {"prompt": None}, "prompt", "a column is missing"),
    (PLAIN | {"prompt": 1}, "prompt", "expected a string or a list of messages"),
    ({"chosen": "blue", "rejected": "red"}, "rejected", "do not begin with the same prompt"),
    (PLAIN | {"clip": "a.bin"}, "clip", "no format or plugin claims this column"),
    (PLAIN | {"margin": "1e-5"}, "margin", "expected a number; found: a string '1e-5'"),
    (PLAIN | {"margin": True}, "margin", "expected a number; found: a boolean True"),
    (PLAIN | {"margin": float("nan")}, "margin", "expected a finite number"),
    (PLAIN | {"margin": 10**400}, "margin", "expected a finite number; found: inf"),
    (PLAIN | {"weight": 0}, "weight", "above 0"),
    (PLAIN | {"weight": -1.0}, "weight", "above 0"),
    (PLAIN | {"id": 1.5}, "id", "expected a string"),
    (PLAIN | {"preferences": {"truth": 1.5}}, "preferences.truth", "a probability"),
    (PLAIN | {"preferences": [1]}, "preferences", "expected an object"),
    (PLAIN | {"chosen_scores": {"truth": "high"}}, "chosen_scores.truth", "expected a number"),
    (PLAIN | {"score_chosen": 1, "chosen_rating": 2}, "chosen_rating", "two columns say the same thing"),
    (PLAIN | {"tools": [{"name": "f"}]}, "tools", "rows cannot set what the chat template is given yet"),
    (PLAIN | {"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "rows cannot set"),
    (PLAIN | {"chosen": "\ud800"}, "chosen", r"half of a surrogate pair.*found: character 0: a string '\\ud800'"),
    (PAIR | {"prompt": []}, "prompt", "a conversation without messages"),
    (PAIR | {"chosen": []}, "chosen", "a conversation without messages"),
    (PAIR | {"chosen": [YES | {"role": "robot"}]}, r"chosen\[0\].role", "a role that no chat template knows"),
    (PAIR | {"chosen": [{"from": "gpt", "value": "4"}]}, r"chosen\[0\].role", "human is user, gpt is assistant"),
    (PAIR | {"chosen": [{"role": "assistant"}]}, r"chosen\[0\].content", "a message without content"),
    (PAIR | {"chosen": ["4"]}, r"chosen\[0\]", "expected an object; found: a string '4'"),
    (
        PAIR | {"chosen": [ASK, YES]},
        "chosen",
        "begin and end with a message of the assistant; found: the first message is by a string 'user'",
    ),
    (
        PAIR | {"rejected": [NO, ASK]},
        "rejected",
        "begin and end with .*; found: the last message is by a string 'user'",
    ),
    (PAIR | {"rejected": [NO | {"content": ""}]}, "rejected", "an empty response"),
    (PAIR | {"rejected": [YES]}, "rejected", "chosen and rejected are the same"),
    (PAIR | {"prompt": [ASK | {"content": 4}]}, r"prompt\[0\].content", "expected a string or a list of blocks"),
    (PAIR | {"prompt": [ASK | {"content": [{"text": "a"}]}]}, r"prompt\[0\].content\[0\].type", "expected a string"),
    (
        PAIR | {"prompt": [ASK | {"content": [{"type": "smell", "smell": "x"}]}]},
        r"prompt\[0\].content\[0\].type",
        "no plugin claims blocks of this type; found: a string 'smell'; registered: .*text",
    ),
    (PAIR | {"prompt": [ASK | {"content": [{"type": "text"}]}]}, r"prompt\[0\].content\[0\].text", "found: null"),
    (PAIR | {"prompt": "3+3?", "chosen": [ASK, YES], "rejected": [ASK, NO]}, "prompt", "neither a conversation nor"),
    (
        {"chosen": [ASK, YES], "rejected": [ASK | {"content": "?"}, NO]},
        r"rejected\[0\]",
        "do not answer the same prompt",
    ),
    ({"chosen": [YES, ASK], "rejected": [NO, ASK]}, r"rejected\[0\]", "do not answer the same prompt"),
    (PAIR | {"messages": [ASK, NO]}, "messages", "no format or plugin claims this column"),
    (KTO | {"label": 1}, "label", "expected true or false; found: a number 1"),
    (KTO | {"label": "true"}, "label", "expected true or false"),
    (KTO | {"completion": [YES]}, "completion", "expected a string, as the prompt is one"),
    (KTO | {"critique": 3}, "critique", "expected a string"),
    (GROUP | {"rewards": [1]}, "rewards", "a reward for each response; found: 1 for 2"),
    (GROUP | {"rewards": [1, None]}, r"rewards\[1\]", "expected a number; found: null"),
    (GROUP | {"responses": [], "rewards": []}, "responses", "a group without responses"),
    (GROUP | {"responses": ["4", " "]}, r"responses\[1\]", "an empty response"),
    (GROUP | {"responses": "45"}, "responses", "expected a list"),
    (TALK | {"messages": [ASK]}, r"messages\[0\].role", "ends with the assistant's answer"),
    (TALK | {"messages": [YES]}, r"messages\[0\].role", "ends with the assistant's answer"),
    (TALK | {"messages": [ASK, YES, {"role": "tool", "content": "?"}]}, "messages", "begin and end with"),
    ({"prompt": "2+2=", "answer": "4"}, "answer", "no format or plugin claims this column"),
]


def _format(row: dict[str, object]) -> str:
    for column, name in (
        ("rewards", "group"),
        ("label", "unpaired"),
        ("messages", "messages"),
        ("answer", "prompt_only"),
    ):
        if column in row and "chosen" not in row:
            return name
    return "preference"


@pytest.mark.parametrize(("row", "field", "says"), TABLE)
def test_a_bad_row_names_file_row_and_field(tmp_path: Path, row: dict[str, object], field: str, says: str) -> None:
    good = {"preference": PLAIN, "unpaired": KTO, "group": GROUP, "messages": TALK, "prompt_only": {"prompt": "a"}}
    data = read([good[_format(row)], row], format=_format(row))
    data[0]
    with pytest.raises(DataError, match=rf"^rows:2 field={field}: .*{says}"):
        data[1]


FILE_TABLE = [
    (
        b'{"prompt": "a", "chosen": "b"',
        r"\(whole row\)",
        "not valid JSON; found: Expecting ',' delimiter at character 29",
    ),
    (b"[1, 2]", r"\(whole row\)", "expected an object of columns; found: a list"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt", "a key occurs twice"),
    (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "margin": NaN}',
        r"\(whole row\)",
        "a number that JSON does not have",
    ),
    (b'{"margin": -Infinity}', r"\(whole row\)", "found: -Infinity"),
    (b'{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1e999}', "margin", "a finite number"),
    (b'{"margin": ' + b"1" * 5000 + b"}", r"\(whole row\)", "a number that cannot be read"),
    (
        b'{"chosen": "a\xffb"}',
        r"\(whole row\)",
        "not valid UTF-8; found: byte 0xff at offset 64 of the file, 13 of the row",
    ),
    (b'{"a": [{"b": "\\ud83d"}]}', r"a\[0\].b", "half of a surrogate pair"),
    (b"[" * 100_000 + b"]" * 100_000, r"\(whole row\)", "nested too deeply"),
]


@pytest.mark.parametrize(("line", "field", "says"), FILE_TABLE)
def test_a_line_that_is_no_row_names_file_line_and_field(tmp_path: Path, line: bytes, field: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(PLAIN).encode()
    assert len(good) == 50
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    data = read(path)
    assert data[2].chosen == data[0].chosen
    with pytest.raises(DataError, match=rf"rows.jsonl:2 field={field}: .*{says}"):
        data[1]


def test_a_truncated_file_names_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PLAIN) + "\n" + json.dumps(PLAIN)[:20])
    with pytest.raises(DataError, match=r"rows.jsonl:2 field=\(whole row\): the last line is cut off"):
        read(path)[1]


HOSTILE = ["\x1b]0;owned\x07", "\x9b31m", "\u202eevil", "a\rb", "\x00", "\u2028", "\x7f", "\u200bx"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_message_is_obeyed_by_a_terminal(tmp_path: Path, text: str) -> None:
    rows: list[object] = [
        PLAIN,
        PLAIN | {text: 1},
        PAIR | {"chosen": [{"role": text, "content": "4"}]},
        PLAIN | {"preferences": {text: "x"}},
        PLAIN | {"margin": text},
        [text],
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found = [error for error in read(path).scan() if isinstance(error, DataError)]
    assert len(found) == 5
    for error in found:
        assert all(part.isprintable() for part in (str(error), error.what, error.got or "", error.field or ""))
    write_bad_rows(tmp_path / "bad.jsonl", [BadRow.of(error) for error in found])
    assert (tmp_path / "bad.jsonl").read_bytes().isascii()


@pytest.mark.parametrize("text", [*HOSTILE[:-1], "<|im_end|>", "e\u0301", "\U0001f600", "\ufeffx", "x" * 100_000])
def test_what_is_strange_but_readable_is_kept_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": [ASK], "chosen": [YES | {"content": f"4{text}"}], "rejected": [NO]}))
    assert read(path)[0].chosen.messages[0].parts[0].value == f"4{text}"


def test_metadata_is_allowed_and_a_null_column_is_no_column() -> None:
    data = read([PLAIN | {"source": "a book", "category": ["x"], "clip": None, "images": []}])
    assert data[0].kind == "pair"


def test_a_format_that_fails_in_its_own_way_is_an_error_about_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data = read([PLAIN])

    def fail(*_: object, **__: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(type(data._reads), "comparison", fail)
    with pytest.raises(DataError, match=r"rows:1 .*format 'preference' failed on this row; found: KeyError: 'inside'"):
        data[0]


def test_a_format_that_fails_to_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    format = type(read([PLAIN])._reads)

    def fail(*_: object, **__: object) -> bool:
        raise KeyError("inside")

    monkeypatch.setattr(format, "claims", fail)
    with pytest.raises(PluginError, match=r"the format 'preference' of plugin 'text' of modalign .* found: KeyError"):
        read([PLAIN])


def test_a_format_that_forgets_to_answer_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(read([PLAIN])._reads), "claims", lambda *_: None)
    with pytest.raises(DataError, match="no format claims"):
        read([PLAIN])


@pytest.mark.parametrize("kind", ["text", "image", "audio", "video"])
def test_a_block_with_a_field_that_nothing_reads_names_it(kind: str) -> None:
    block = {"type": kind, kind: "x", "detail": "high", "unused": None}
    row = {"prompt": [{"role": "user", "content": [block]}], "completion": "y"}
    with pytest.raises(DataError, match=rf"field=prompt\[0\].content\[0\].detail: .* what is read (is|are) .*{kind}"):
        read([row])[0]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_column_of_an_array_is_a_column(size: int) -> None:
    with pytest.raises(DataError, match="field=vector: no format or plugin claims this column"):
        read([PLAIN | {"vector": np.zeros(size)}])[0]
