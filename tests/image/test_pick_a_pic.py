"""Pick-a-Pic: pairs of pictures in their public layout become what they say."""

from pathlib import Path

import pytest

from modalign.data import check, read
from modalign.errors import DataError
from modalign_image.pick_a_pic_sample import pairs, sample


def row(**said: object) -> dict[str, object]:
    """A pair whose first picture was taken, unless it says otherwise."""
    (found,) = pairs()
    taken = {"label_0": 1.0, "label_1": 0.0, "best_image_uid": "picture-0-0", "are_different": True}
    return {name: value for name, value in {**found, **taken, **said}.items() if value is not None}


def test_a_published_file_is_found_and_read_and_ties_are_counted(tmp_path: Path) -> None:
    data = read(sample(tmp_path, 8))
    report = check(data)
    assert (data.format, report.good, report.bad_rows) == ("pick_a_pic", 6, ())
    assert report.modalities == {"text": 6, "image": 12}
    assert sum(report.skipped.values()) == 2


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({}, 0),
        ({"label_0": 0.0, "label_1": 1.0, "best_image_uid": "picture-0-1"}, 1),
        ({"label_0": None, "label_1": None}, 0),
        ({"label_1": None, "best_image_uid": None}, 0),
        ({"label_0": None, "label_1": 1, "best_image_uid": ""}, 1),
    ],
)
def test_the_picture_that_was_taken_is_the_chosen_one(said: dict[str, object], taken: int) -> None:
    given = row(**said)
    (found,) = read([given])
    assert found.prompt[0].parts[0].value == given["caption"]
    assert [one.facts["image_uid"] for one in found.responses] == [f"picture-0-{taken}", f"picture-0-{1 - taken}"]
    assert [next(one.parts()).value for one in found.responses] == [given[f"jpg_{taken}"], given[f"jpg_{1 - taken}"]]
    assert found.chosen.facts["source"] == given[f"model_{taken}"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"label_0": 0.5, "label_1": 0.5, "best_image_uid": "tie"}, "a tie"),
        ({"label_0": None, "label_1": None, "best_image_uid": "tie"}, "a tie"),
        ({"has_label": False}, "no picture was taken"),
        ({"label_0": None, "label_1": None, "best_image_uid": ""}, "no picture was taken"),
    ],
)
def test_ties_and_rows_without_a_label_are_skipped(said: dict[str, object], why: str) -> None:
    report = check(read([row(**said)], format="pick_a_pic"))
    assert (report.good, report.bad_rows) == (0, ())
    assert [why in reason for reason in report.skipped] == [True]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (
            {"label_1": 1.0},
            "labels that contradict each other; found: label_0: 1.0, label_1: 1.0",
        ),
        ({"best_image_uid": "picture-0-1"}, "field=best_image_uid: labels that contradict each other"),
        ({"best_image_uid": "another"}, "field=best_image_uid: a picture that the row does not have; found: another"),
        ({"label_0": 0.7}, "field=label_0: a label is 1, 0, or 0.5 for a tie; found: 0.7"),
        ({"label_0": None, "label_1": 0.7}, "field=label_1: a label is 1, 0, or 0.5 for a tie; found: 0.7"),
        ({"caption": " "}, "field=caption: an empty prompt"),
        ({"jpg_1": b"no picture"}, "field=jpg_1"),
        ({"mask": "x"}, "field=mask: no format or plugin claims this column"),
    ],
)
def test_a_row_that_cannot_be_used_names_its_field(said: dict[str, object], what: str) -> None:
    with pytest.raises(DataError) as found:
        read([row(**said)])[0]
    assert what in str(found.value)
