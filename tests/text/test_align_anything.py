"""align-anything: every subset in its public layout becomes what its columns say; rows without a verdict count."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.content import Feedback
from modalign.data import check, convert, prepare, read
from modalign.errors import DataError, Skipped
from modalign.files import File
from modalign.objectives.base import Needs
from modalign.testing.doubles import ToyPreparer
from modalign_text.align_anything_columns import SUBSETS, subset_of
from modalign_text.align_anything_sample import FEEDBACK, sample, t2t

ASKED = {"ti2t": "image", "ta2t": "audio", "tv2t": "video", "ti2ti": "image"}
ANSWERED = {"t2i": ["image"], "t2a": ["audio"], "t2v": ["video"], "ti2ti": ["text", "image"]}


@pytest.mark.parametrize("subset", SUBSETS)
def test_every_subset_is_found_read_and_counted(tmp_path: Path, subset: str) -> None:
    data = read(sample(tmp_path, subset, 6))
    report = check(data)
    assert data.format == "align_anything"
    # every third row of the sample has no overall preference
    assert (report.good, report.bad_rows, report.skipped) == (4, (), {"no overall preference": 2})
    found = data[0]
    assert [part.modality for part in found.prompt[0].parts] == [*filter(None, [ASKED.get(subset)]), "text"]
    for response in found.responses:
        assert [part.modality for part in response.segments()] == ANSWERED.get(subset, ["text"])
        assert set(response.scores) == set(SUBSETS[subset].dimensions.values())
        assert set(response.feedback) == set(response.scores)
    assert found.facts["subset"] == subset
    assert {found.chosen.facts["source"], found.rejected.facts["source"]} == {"model-1", "model-2"}


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_numbers_follow_the_response_they_are_about(tmp_path: Path, subset: str) -> None:
    file = sample(tmp_path, subset, 6, seed=1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    one, data = SUBSETS[subset], read(file)
    seen: set[int] = set()
    for number, row in enumerate(rows):
        better = row[f"overall_{one.label}"]
        if better == 0:
            continue
        seen.add(better)
        found = data[number]
        for letters, dimension in one.dimensions.items():
            rates = row[f"{dimension}_rate_1"], row[f"{dimension}_rate_2"]
            assert (found.chosen.scores[dimension], found.rejected.scores[dimension]) == (
                rates[better - 1],
                rates[2 - better],
            )
            said = row[f"{letters}_{one.label}"]
            # preferred is the chosen one: 1; the other: 0; neither beside equal rates: a tie; else nobody said
            expected = 0.5 if said == 0 and rates[0] == rates[1] else None if said == 0 else float(said == better)
            assert found.preferences.get(dimension) == expected
            assert found.chosen.feedback[dimension] == Feedback(rationale=row[f"{letters}_rationale_{better}"])
    assert seen == {1, 2}


@pytest.mark.parametrize("subset", [*SUBSETS, *FEEDBACK])
def test_every_subset_converts_to_rows_that_mean_the_same(tmp_path: Path, subset: str) -> None:
    data = read(sample(tmp_path / "src", subset, 3))
    kept = [replace(one, origin=None) for one in data.scan() if isinstance(one, Comparison)]
    done = convert(data, tmp_path / "all.parquet")
    assert sum(done.skipped.values()) + done.rows == 3
    assert [replace(one, origin=None) for one in read(tmp_path / "all.parquet")] == kept


ROW = t2t()[0] | {"overall_response": 1}


@pytest.mark.parametrize("label", [0, 3, -1, None, "0", "", 1.5, float("nan")])
def test_a_row_without_an_overall_preference_is_skipped(label: object) -> None:
    data = read([ROW, ROW | {"overall_response": label}], format="align_anything")
    assert data[0].kind == "pair"
    with pytest.raises(Skipped, match="field=overall_response: no overall preference"):
        data[1]


UNJUDGED = {"overall_response": None}


@pytest.mark.parametrize(
    "nulls",
    [
        {"c_response": None},
        dict.fromkeys(f"{letters}_response" for letters in SUBSETS["t2t"].dimensions),
        {"c_response": None, "response_2": None},
        {"c_response": None, "prompt": None},
    ],
)
def test_a_row_without_an_overall_preference_is_skipped_whatever_else_is_null(nulls: dict[str, None]) -> None:
    rows = [ROW, ROW | UNJUDGED | nulls, ROW]
    report = check(read(rows))
    assert (report.good, report.bad_rows, report.skipped) == (2, (), {"no overall preference": 1})
    assert len(prepare(read(rows), ToyPreparer(), Needs(pairing="pair"))) == 2


@pytest.mark.parametrize("subset", SUBSETS)
def test_nulls_of_one_subset_beside_anothers_columns_are_skipped_too(tmp_path: Path, subset: str) -> None:
    file = sample(tmp_path, subset, 2)
    one = SUBSETS[subset]
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    second |= {f"overall_{one.label}": None, f"{next(iter(one.dimensions))}_{one.label}": None}
    # as in a table of several subsets, where every row has every column
    every = dict.fromkeys((f"overall_{other.label}" for other in SUBSETS.values()), None)
    report = check(read([every | first, every | second], root=tmp_path))
    assert (report.good, report.bad_rows, report.skipped) == (1, (), {"no overall preference": 1})
    assert read([every | first], root=tmp_path)[0].facts["subset"] == subset


def test_a_file_that_begins_with_unjudged_rows_is_of_its_format() -> None:
    assert read([ROW | UNJUDGED | {"c_response": None}, ROW | UNJUDGED | {"o_response": None}, ROW]).format == (
        "align_anything"
    )


def test_a_judged_row_without_a_response_names_the_column() -> None:
    with pytest.raises(DataError, match="field=response_2: a column is missing; found: null"):
        read([ROW, ROW, ROW | {"response_2": None}])[2]


@pytest.mark.parametrize("label", [1, 2, "2", 1.0])
def test_the_preferred_response_is_the_chosen_one(label: float | str) -> None:
    found = read([ROW | {"overall_response": label}])[0]
    assert found.chosen.messages[0].parts[0].value == ROW[f"response_{int(float(label))}"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"overall_response": [1]}, "overall_response", "expected a number"),
        ({"overall_response": True}, "overall_response", "expected 1 or 2"),
        ({"response_2": ["x"]}, "response_2", "expected a string"),
        ({"response_2": " "}, "response_2", "an empty response"),
        ({"clarity_rate_1": "3"}, "clarity_rate_1", "expected a number"),
        ({"c_rationale_1": 3}, "c_rationale_1", "expected a string"),
        ({"beauty_rate_1": 3}, "beauty_rate_1", "no format or plugin claims this column"),
        ({"question": "Twice?"}, "prompt", "expected one of the columns prompt, question; found: prompt, question"),
        ({"c_critique_1": "a", "clarity_critique_1": "b"}, "clarity_critique_1", "two columns say the same thing"),
    ],
)
def test_a_row_that_is_wrong_names_its_field(change: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(DataError, match=f"rows:1 field={field}: {says}"):
        read([ROW | change], format="align_anything")[0]


def test_words_about_a_dimension_and_about_the_whole_are_kept_apart() -> None:
    more = {"c_critique_1": "vague", "c_refinement_1": "be exact", "critique_1": "poor", "refinement_1": "Better."}
    found = read([ROW | more | {"reasoning": "because", "text_2_feedback": "fine", "overall_textfeedback": ""}])[0]
    rationale = str(ROW["c_rationale_1"])
    assert found.chosen.feedback["clarity"] == Feedback(rationale=rationale, critique="vague", refinement="be exact")
    assert (found.chosen.critique, found.chosen.refinement, found.rejected.critique) == ("poor", "Better.", "fine")
    assert found.facts == {"subset": "t2t", "reasoning": "because"}


def test_the_mark_of_a_medium_in_the_words_is_not_words(tmp_path: Path) -> None:
    part, words = read(sample(tmp_path, "tv2t", 1))[0].prompt[0].parts
    assert isinstance(part.value, File)
    assert (part.value.name, words.value) == ("./videos/question-0.mp4", "What happens?")


def test_media_of_a_response_may_stand_in_either_of_the_published_columns(tmp_path: Path) -> None:
    row = json.loads(sample(tmp_path, "t2i", 1).read_text())
    other = {{"image_1": "response_1", "image_2": "response_2"}.get(name, name): value for name, value in row.items()}
    one, two = (read([given], root=tmp_path)[0] for given in (row, other))
    assert replace(one, origin=None) == replace(two, origin=None)


def test_a_missing_file_names_its_column(tmp_path: Path) -> None:
    file = sample(tmp_path, "ti2ti", 1)
    next((tmp_path / "images").glob("answer-0-2.*")).unlink()
    (bad,) = check(read(file)).bad_rows
    assert bad.field.startswith("output_image_url_2")
    assert "no such file" in bad.what


@pytest.mark.parametrize(("subset", "column"), FEEDBACK.items())
def test_the_refined_response_of_a_feedback_pair_is_the_better_one(tmp_path: Path, subset: str, column: str) -> None:
    file = sample(tmp_path, subset, 1)
    row, data = json.loads(file.read_text()), read(file)
    found = data[0]
    assert data.format == "align_anything_refined"
    assert (found.prompt[0].parts[0].modality, found.prompt[0].parts[0].value) == (
        column,
        base64.b64decode(row[column]),
    )
    assert (found.chosen.messages[0].parts[0].value, found.rejected.messages[0].parts[0].value) == (
        row["refinement"],
        row["response"],
    )
    assert found.rejected.refinement == row["refinement"]
    assert check(data).good == 1


@pytest.mark.parametrize(("subset", "column", "name"), [("ti2t_llf", "image", "a.png"), ("ta2t_llf", "audio", "a.wav")])
def test_the_medium_of_a_feedback_pair_may_be_a_file_or_broken_base64(
    tmp_path: Path, subset: str, column: str, name: str
) -> None:
    row = json.loads(sample(tmp_path, subset, 1).read_text())
    (tmp_path / name).write_bytes(base64.b64decode(row[column]))
    by_name, by_value = (read([row | {column: one}], root=tmp_path)[0] for one in (name, row[column]))
    assert by_name.prompt == by_value.prompt
    with pytest.raises(DataError, match=f"field={column}: neither base64 nor the name of a file"):
        read([row | {column: "no base64!"}])[0]


def test_other_rows_are_of_no_subset() -> None:
    for columns in ({"prompt"}, {"prompt", "chosen", "rejected"}, {"prompt", "response_1", "response_2"}, {"question"}):
        assert subset_of(frozenset(columns)) is None
    # judged, but with a medium that text to text does not have
    assert subset_of(frozenset({*ROW, "image_1"})) is None
