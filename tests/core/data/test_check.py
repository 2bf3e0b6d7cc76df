"""Checking: every bad row is in the report, and what is odd is counted."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from modalign.cli.data import check as command
from modalign.data import Report, check, read
from modalign.errors import ConfigError
from modalign.testing.doubles import ToyPreparer


def _pair(prompt: str, chosen: object, rejected: object, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


GOOD = [_pair(f"{n}=", "a" * (n + 1), "b", source="x") for n in range(20)]


def _check(rows: Sequence[Mapping[str, object]]) -> Report:
    return check(read(rows))


def test_good_rows_give_statistics_and_nothing_else() -> None:
    report = _check(GOOD)
    assert (report.rows, report.good, report.bad_rows, report.warnings) == (20, 20, (), ())
    assert (report.kinds, report.modalities) == ({"pair": 20}, {"text": 60})
    assert report.ignored == {"source": 20}
    prompt, response = report.lengths["prompt characters"], report.lengths["response characters"]
    assert (prompt.least, prompt.most, prompt.mean) == (2, 3, 2.5)  # ten of "n=", ten of "nn="
    assert (response.least, response.median, response.most) == (1, 1, 20)
    assert response.mean == (210 + 20) / 40 == 5.75 or response.mean == 5.8  # one decimal


def test_every_bad_row_is_reported() -> None:
    report = _check([*GOOD, _pair("a", "", "b"), _pair("a", "b", "b"), _pair("a", 1, "b"), *GOOD[:1]])
    assert [(row.row, row.field) for row in report.bad_rows] == [(21, "chosen"), (22, "rejected"), (23, "chosen")]
    assert report.good + len(report.bad_rows) == report.rows == 24
    assert report.reasons.total() == 3


def test_an_id_that_occurs_twice_is_bad() -> None:
    report = _check([_pair("a", "b", "c", id="x"), _pair("d", "e", "f", id="x")])
    assert [(row.row, row.field, row.got) for row in report.bad_rows] == [(2, "id", "'x', also of rows:1")]


def test_repeated_pairs_and_contradictions_are_warnings() -> None:
    rows = [_pair("a", "b", "c"), _pair("a", "b", "c"), _pair("a", "c", "b"), _pair("a", "c", "d")]
    report = _check(rows)
    assert report.bad_rows == ()
    assert report.warnings == (
        "1 rows repeat an earlier one (rows:2 of rows:1)",
        "1 rows contradict an earlier one: the same responses, judged the other way (rows:3 of rows:1)",
    )


def test_one_completion_with_both_labels_is_a_contradiction() -> None:
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False)]
    assert "rows contradict" in _check(rows).warnings[0]


def test_control_characters_are_counted() -> None:
    report = _check([_pair("a", "b\x1b[31m", "c"), _pair("a", "\u202eb", "c"), _pair("a", "b\n\tc", "d")])
    assert report.warnings == ("2 rows hold control characters, which are kept",)


def test_with_a_preparer_tokens_are_counted_and_long_rows_found() -> None:
    report = check(read([*GOOD[:3], _pair("a" * 50, "b", "c")]), ToyPreparer(), max_length=20)
    assert [(row.row, row.reason) for row in report.bad_rows] == [(4, "too long")]
    # "n=" and the mark of the end of the question; the longest response is "aaa" and the mark of its end
    assert (report.lengths["prompt tokens"].most, report.lengths["response tokens"].most) == (3, 4)


def test_progress_is_told() -> None:
    told: list[int] = []
    check(read(GOOD), progress=told.append)
    assert told == [0, 20]


def _file(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_the_command_shows_tables_and_ends_well_on_good_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(_file(tmp_path / "good.jsonl", GOOD)) == 0
    shown = capsys.readouterr().out
    assert "20: 20 good, 0 bad" in shown
    assert "every row can be used" in shown


def test_the_command_ends_with_three_on_bad_rows_and_escapes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [_pair("a", "\x1b]0;owned\x07", 1), _pair("a", "", "[red]b[/]"), _pair("a", "b", "c") | {"\x1b[2J[bold]": 1}]
    path = _file(tmp_path / "bad.jsonl", [*GOOD, *bad])
    assert command(path, bad_rows=tmp_path / "list.jsonl") == 3
    shown = capsys.readouterr().out
    assert "3 of 23 rows cannot be used" in shown
    assert "\x1b" not in shown
    assert "[bold]" in shown
    listed = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert [row["row"] for row in listed] == [21, 22, 23]


def test_the_command_refuses_what_it_could_only_ignore(tmp_path: Path) -> None:
    path = _file(tmp_path / "good.jsonl", GOOD)
    with pytest.raises(ConfigError, match=r"--max-length: .*no --model"):
        command(path, max_length=5)
    with pytest.raises(ConfigError, match=r"--bad-rows: .*no folder"):
        command(path, bad_rows=tmp_path / "nowhere" / "list.jsonl")


def test_the_command_gives_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(_file(tmp_path / "bad.jsonl", [*GOOD, _pair("a", "", "b")]), json=True) == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["good"], report["reasons"]) == (21, 20, {"an empty response": 1})
    assert report["bad_rows"][0]["field"] == "chosen"
    assert report["lengths"]["prompt characters"]["least"] == 2


@pytest.mark.skipif(
    "MODALIGN_SHARED_DATA" not in os.environ, reason="MODALIGN_SHARED_DATA names no folder of real data"
)
def test_real_dialogues_are_read_and_their_empty_answers_found() -> None:
    folder = Path(os.environ["MODALIGN_SHARED_DATA"]) / "hh-rlhf"
    report = check(read(folder, split="train"))
    assert report.format == "hh_rlhf"
    assert {(row.field, row.reason) for row in report.bad_rows} <= {("chosen", "an empty response")}
    assert report.good >= 0.99 * report.rows
