"""SafeSora: pairs, labels and prompts in their public layout become what they say."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.data import check, convert, read
from modalign.errors import DataError, Skipped
from modalign.files import File
from modalign_video.safesora import HARMS
from modalign_video.safesora_sample import pairs, sample

DIMENSIONS = {"helpfulness", "harmlessness", "instruction_following", "correctness", "informativeness", "aesthetics"}


def _rows(file: Path) -> list[dict[str, object]]:
    return json.loads(gzip.decompress(file.read_bytes()))


def _clips(found: Comparison) -> list[object]:
    return [one.facts["video_id"] for one in found.responses]


@pytest.mark.parametrize(
    ("kind", "format", "modalities"),
    [
        ("pairs", "safesora", {"text": 3, "video": 6}),
        ("labels", "safesora_label", {"text": 3, "video": 3}),
        ("prompts", "safesora_prompt", {"text": 3}),
    ],
)
def test_every_file_is_found_and_read(tmp_path: Path, kind: str, format: str, modalities: dict[str, int]) -> None:
    data = read(sample(tmp_path, kind, 3))  # type: ignore[arg-type]
    report = check(data)
    assert (data.format, report.good, report.bad_rows, report.modalities) == (format, 3, (), modalities)


def test_the_better_clip_by_helpfulness_or_by_harmlessness_comes_first(tmp_path: Path) -> None:
    file = sample(tmp_path, "pairs", 8)
    helpful, harmless = read(file), read(file, format="safesora_harmlessness")
    differ = 0
    for number, row in enumerate(_rows(file)):
        for data, dimension in ((helpful, "helpfulness"), (harmless, "harmlessness")):
            found, better = data[number], row[dimension]
            assert found.chosen.facts["video_id"] == row[str(better)]["video_id"]  # type: ignore[index]
            assert set(found.preferences) == DIMENSIONS
            assert found.preferences[dimension] == 1.0
            for name in ("helpfulness", "harmlessness"):
                assert found.preferences[name] == float(row[name] == better)
        differ += _clips(helpful[number]) != _clips(harmless[number])
    assert 0 < differ < 8


def test_clips_lie_below_the_root_by_their_prompt(tmp_path: Path) -> None:
    found = read(sample(tmp_path, "pairs", 1))[0]
    values = [next(one.segments()).value for one in found.responses]
    assert {str(value) for value in values} == {f"videos/prompt-0/video-0-{which}.mp4" for which in (0, 1)}
    assert all(isinstance(value, File) and value.root == tmp_path for value in values)


def test_a_label_is_a_score_of_one_or_zero(tmp_path: Path) -> None:
    file = sample(tmp_path, "labels", 6)
    seen: set[object] = set()
    for found, row in zip(read(file), _rows(file), strict=True):
        (response,) = found.responses
        labels = row["video_labels"]
        assert isinstance(labels, dict)
        assert response.scores == {
            **{name: float(labels[name]) for name in HARMS},
            "is_safe": float(bool(row["is_safe"])),
            "unsafe": float(not row["is_safe"]),
        }
        assert response.label is row["is_safe"]
        assert response.facts["generated_from"] == row["generated_from"]
        assert found.facts["prompt_type"] == row["prompt_type"]
        seen.add(response.label)
    assert seen == {True, False}


def test_prompts_keep_their_kinds_of_harm(tmp_path: Path) -> None:
    file = sample(tmp_path, "prompts", 4)
    for found, row in zip(read(file), _rows(file), strict=True):
        assert found.id == row["prompt_id"]
        assert {name: found.facts[f"prompt_{name}"] for name in HARMS} == row["prompt_labels"]


@pytest.mark.parametrize("kind", ["pairs", "labels", "prompts"])
def test_every_file_converts_to_rows_that_mean_the_same(tmp_path: Path, kind: str) -> None:
    data = read(sample(tmp_path, kind, 3))  # type: ignore[arg-type]
    for target in ("all.parquet", "out"):
        convert(data, tmp_path / target)
        assert [replace(one, origin=None) for one in read(tmp_path / target)] == [
            replace(one, origin=None) for one in data
        ]


ROW = pairs()[0]
CLIP = ROW["video_0"]
assert isinstance(CLIP, dict)


@pytest.mark.parametrize("name", ["information", "informativeness"])
def test_informativeness_has_two_names(name: str) -> None:
    found = read([ROW | {"helpfulness": "video_1", "sub_preferences": {name: "video_1"}}])[0]
    assert found.preferences["informativeness"] == 1.0


def test_a_pair_without_the_preference_it_is_ordered_by_is_skipped() -> None:
    row = ROW | {"helpfulness": None}
    with pytest.raises(Skipped, match="field=helpfulness: no preference for helpfulness"):
        read([row])[0]
    assert read([row], format="safesora_harmlessness")[0].preferences["harmlessness"] == 1.0


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"helpfulness": "video_2"}, "helpfulness", "expected 'video_0' or 'video_1'; found: a string 'video_2'"),
        ({"sub_preferences": {"beauty": "video_0"}}, "sub_preferences.beauty", "a dimension that SafeSora does not"),
        (
            {"sub_preferences": {"information": "video_0", "informativeness": "video_0"}},
            "sub_preferences.informativeness",
            "two fields say the same thing",
        ),
        ({"video_0": CLIP | {"video_labels": {"rude": True}}}, "video_0.video_labels.rude", "an unknown kind of harm"),
        ({"video_0": CLIP | {"video_labels": {"hate": 1}}}, "video_0.video_labels.hate", "expected true or false"),
        ({"video_0": CLIP | {"is_safe": "yes"}}, "video_0.is_safe", "expected true or false"),
        ({"video_0": CLIP | {"video_id": None}}, "video_0.video_id", "a column is missing"),
        ({"video_0": CLIP | {"video_path": "elsewhere.mp4"}}, "video_0.video_path", "a path that is not the clip's"),
        (
            {"video_0": CLIP | {"video_path": None}},
            "video_0.video_path",
            "a file .* found: a string .videos/prompt-0/video-0-0.mp4",
        ),
        ({"video_0": CLIP | {"video_id": "../x", "video_path": None}}, "video_0.video_id", "no name of a file"),
        ({"video_0": CLIP | {"stars": 3}}, "video_0.stars", "no format or plugin claims this column"),
        ({"stars": 3}, "stars", "no format or plugin claims this column"),
        ({"prompt_text": " "}, "prompt_text", "an empty prompt"),
    ],
)
def test_a_row_that_is_wrong_names_its_field(change: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(DataError, match=rf"rows:1 field={field}.*: .*{says}"):
        read([ROW | change])[0]


def test_a_missing_clip_is_a_bad_row_that_names_it(tmp_path: Path) -> None:
    file = sample(tmp_path, "pairs", 2)
    (tmp_path / "videos/prompt-1/video-1-0.mp4").unlink()
    (bad,) = check(read(file)).bad_rows
    assert bad.row == 2
    assert bad.field.startswith("video_0.video_path")
    assert "videos/prompt-1/video-1-0.mp4" in (bad.got or "")
