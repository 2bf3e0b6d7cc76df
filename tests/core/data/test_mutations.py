"""Damaged rows and damaged files: whatever is in them, the only error is a `DataError` with file, row and field."""

import copy
import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.comparison import Comparison
from modalign.data import check, read
from modalign.errors import DataError
from modalign.registry import registry

ASK, YES, NO = (
    {"role": role, "content": said} for role, said in (("user", "2+2?"), ("assistant", "4"), ("assistant", "5"))
)
ROWS: list[dict[str, object]] = [
    {"prompt": "2+2=", "chosen": "4", "rejected": "5", "margin": 1.0, "weight": 2, "id": "a"},
    {"chosen": "2+2=4", "rejected": "2+2=5", "preferences": {"truth": 0.9}, "score_chosen": 1},
    {"prompt": [ASK], "chosen": [YES], "rejected": [NO], "chosen_scores": {"truth": 1}},
    {"chosen": [ASK, YES], "rejected": [ASK, NO]},
    {"prompt": "2+2=", "completion": "4", "label": True, "critique": "short", "scores": {"truth": 1}},
    {"messages": [ASK, YES | {"content": [{"type": "text", "text": "4"}]}]},
    {"prompt": [ASK], "responses": [[YES], "5"], "rewards": [1, 0.5]},
    {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
    {"prompt": "2+2="},
    {
        "prompt": [ASK],
        "chosen": [YES],
        "rejected": [NO],
        "facts": {"a": 1},
        "chosen_feedback": {"a": {"critique": "b"}},
    },
    {
        "prompt": "2+2?",
        "response_1": "4",
        "response_2": "5",
        "overall_response": 1,
        "p_response": 0,
        "s_rationale_1": "a",
    },
    {"prompt": "2+2?", "response": "5", "refinement": "4", "critique": "one too many"},
    {"prompt_id": "a", "prompt_text": "2+2?", "prompt_type": "b", "prompt_labels": {"hate": False}},
    {"prompt": [ASK | {"content": [{"type": "image"}]}], "completion": [YES], "images": [{"bytes": b"", "path": "a"}]},
]
JUNK: list[object] = [
    *(None, True, 0, -1, 1e400, float("nan"), 10**400, "", " ", "\x00", "\ud800", "\n\nHuman:", b"\xff", object()),
    *([], {}, [[]], [{}], [None], {"role": "user"}, [{"role": "assistant", "content": None}], {"type": "text"}),
    *([{"type": "smell"}], [{"role": "tool", "content": "x"}], [YES, YES], [ASK], {1: 2}, ("a",), {"a": {"b": []}}),
]


def _paths(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in _paths(one, (*path, key)))]


def _mutate(row: dict[str, object], chooser: random.Random) -> dict[str, object]:
    """The row with one value somewhere in it replaced, removed, doubled or given a neighbour."""
    row = copy.deepcopy(row)
    if not row:
        return row
    *way, last = chooser.choice(_paths(row)[1:])
    holder: object = row
    for step in way:
        holder = holder[step]  # type: ignore[index]
    assert isinstance(holder, dict | list)
    match chooser.randrange(4):
        case 0:
            del holder[last]  # type: ignore[arg-type]
        case 1 if isinstance(holder, list):
            holder.append(chooser.choice(JUNK))
        case 1 if isinstance(holder, dict):
            holder[chooser.choice(["smells", "x\x1b", "content", "label", "id", "rejected", ""])] = chooser.choice(JUNK)
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))  # type: ignore[call-overload]
        case _:
            holder[last] = chooser.choice(JUNK)  # type: ignore[call-overload]
    return row


@pytest.mark.parametrize("name", list(registry.entries("formats")))
def test_a_thousand_damaged_rows_give_comparisons_or_errors_with_their_place(name: str) -> None:
    chooser = random.Random(name)
    rows = [_mutate(_mutate(chooser.choice(ROWS), chooser), chooser) for _ in range(1000)]
    bad = 0
    for at, found in enumerate(read(rows, format=name).scan()):
        if isinstance(found, Comparison):
            assert found.kind != "pair" or found.chosen != found.rejected
            continue
        bad += 1
        assert str(found).startswith(f"rows:{at + 1} field=")
        assert str(found).isprintable()
        assert "failed on this row" not in found.what  # a fault of the row that the format foresaw
    assert bad > 100  # the injector fired


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["prompt", "chosen", "rejected", "completion", "label", "messages", "responses", "rewards", "id"]
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(COLUMNS | st.text(max_size=4), JSON, max_size=5), min_size=1, max_size=4))
def test_any_json_at_all_is_read_or_refused_by_name(rows: list[dict[str, object]]) -> None:
    try:
        data = read(rows)
    except DataError as error:
        assert error.file == "rows"  # noqa: PT017 - most rows raise nothing
        return
    for found in data.scan():
        assert isinstance(found, Comparison) or (found.file == "rows" and found.row and found.field)


LINES = "\n".join(json.dumps(row) for row in ROWS[:4]).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, len(LINES) - 1),
    put=st.binary(max_size=3),
    cut=st.integers(0, 40),
    suffix=st.sampled_from([".jsonl", ".json", ".jsonl.gz", ".parquet"]),
)
def test_damaged_files_are_read_or_refused_by_name(tmp_path: Path, at: int, put: bytes, cut: int, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    content = gzip.compress(LINES, mtime=0) if suffix.endswith(".gz") else LINES
    at %= len(content)
    path.write_bytes(content[:at] + put + content[at + cut :])
    try:
        report = check(read(path))
    except DataError as error:
        assert path.name in str(error)  # noqa: PT017 - some files raise nothing
        return
    assert report.good + len(report.bad_rows) == report.rows
    assert all(row.file == str(path) and row.row and row.field for row in report.bad_rows)
