"""Signs of harm: read back exactly whatever is beside them, and written as SafeSora-Label's rows and clips."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import pytest
import torch

from modalign.content import Part
from modalign.data import check, read
from modalign.errors import ConfigError
from modalign_video import harms, signs
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality
from modalign_video.safesora import HARMS


def _saved(part: Part, folder: Path) -> Part:
    """The clip as it comes back from the file that it is saved as."""
    file = VideoModality().save(part, folder / "clip")
    content = VideoModality().decode(
        Part(modality="video", value=file.read_bytes()), VideoSettings(frames=signs.FRAMES)
    )
    return Part(modality="video", value=content.tensor)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", HARMS)
def test_a_sign_alone_is_read_and_no_other(name: str, seed: int) -> None:
    assert signs.read(signs.draw({name}, seed=seed)) == {name}


def test_any_subset_is_read_from_memory_and_from_its_file(tmp_path: Path) -> None:
    random = Random(0)
    for seed in range(24):
        shown = frozenset(signs.subset(random))
        clip = signs.draw(shown, seed=seed)
        assert signs.read(clip) == shown
        assert signs.read(_saved(clip, tmp_path)) == shown


def test_all_twelve_fit_wherever_they_fall_and_none_is_read_from_an_empty_clip() -> None:
    for seed in range(24):
        assert signs.read(signs.draw(HARMS, seed=seed)) == frozenset(HARMS)
        assert signs.read(signs.draw((), seed=seed)) == frozenset()


def test_signs_are_read_through_noise_of_a_tenth() -> None:
    made, random = torch.Generator().manual_seed(0), Random(1)
    for seed in range(24):
        shown = frozenset(signs.subset(random))
        clip = signs.draw(shown, seed=seed).value
        assert isinstance(clip, torch.Tensor)
        noisy = clip + 0.1 * torch.randn(clip.shape, generator=made)
        assert signs.read(Part(modality="video", value=noisy)) == shown


def test_a_sign_that_is_seen_too_briefly_is_not_read() -> None:
    clip = signs.draw({"hate"}, seed=1).value
    assert isinstance(clip, torch.Tensor)
    (bright,) = clip.amax((1, 2, 3)).gt(0.5).nonzero(as_tuple=True)
    assert min(signs.SEEN) <= len(bright) <= max(signs.SEEN)
    clip[bright[:-2]] = 0.05  # two of its frames are left
    assert signs.read(Part(modality="video", value=clip)) == frozenset()


def test_the_seed_moves_a_sign_in_place_and_time() -> None:
    def first(seed: int) -> tuple[int, ...]:
        clip = signs.draw({"crime"}, seed=seed).value
        assert isinstance(clip, torch.Tensor)
        return tuple(clip.amax(1).gt(0.5).nonzero()[0].tolist())

    places = {first(seed) for seed in range(40)}
    assert len(places) > 30
    assert len({frame for frame, _, _ in places}) > 3


def test_each_label_holds_for_half_of_all_clips_and_an_eighth_are_safe() -> None:
    random = Random(0)
    drawn = [signs.subset(random) for _ in range(4000)]
    # 4 standard deviations: 4 * sqrt(0.5 * 0.5 / 4000) = 0.032, and 4 * sqrt(1/8 * 7/8 / 4000) = 0.021
    for name in HARMS:
        assert abs(sum(name in one for one in drawn) / 4000 - 0.5) < 0.032
    assert abs(sum(not one for one in drawn) / 4000 - 1 / 8) < 0.021


@pytest.mark.parametrize(
    ("value", "says"),
    [(torch.zeros(8, 3, 16, 16), r"not from \(8, 3, 16, 16\)"), (b"mp4", "not from bytes")],
)
def test_what_cannot_hold_signs_is_refused(value: torch.Tensor | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        signs.read(Part(modality="video", value=value))


def test_there_is_no_sign_for_another_harm() -> None:
    with pytest.raises(ValueError, match="no sign stands for 'rudeness'; there are signs for porn"):
        signs.draw({"hate", "rudeness"})


# --- as a data set -----------------------------------------------------------------------------------------------


def test_written_rows_are_safesora_labels_and_say_what_is_read_from_their_clips(tmp_path: Path) -> None:
    file = harms.write(tmp_path, "train", 12)
    data = read(file)
    assert (data.format, check(data).good) == ("safesora_label", 12)
    modality, seen = VideoModality(), set()
    for found in data:
        (answer,) = found.responses
        (part,) = answer.segments()
        frames = modality.decode(part, VideoSettings(frames=signs.FRAMES)).tensor
        shown = signs.read(Part(modality="video", value=frames))
        assert answer.scores == {
            **{name: float(name in shown) for name in HARMS},
            "is_safe": float(not shown),
            "unsafe": float(bool(shown)),
        }
        seen |= shown
    assert seen == set(HARMS)


def test_the_words_of_a_prompt_say_nothing_of_the_labels(tmp_path: Path) -> None:
    rows = json.loads(gzip.decompress(harms.write(tmp_path, "train", 12).read_bytes()))
    assert not any(name in row["prompt_text"] for row in rows for name in HARMS)
    assert not any(value for row in rows for value in row["prompt_labels"].values())


def test_the_same_seed_writes_the_same_rows_and_splits_share_no_clip(tmp_path: Path) -> None:
    first, again = (harms.write(tmp_path / name, "train", 3, seed=5) for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    train, test = (
        {clip.read_bytes() for clip in (tmp_path / "a" / "videos").rglob(f"{split}*.mp4")}
        for split, _ in (("train", first), ("test", harms.write(tmp_path / "a", "test", 3, seed=5)))
    )
    assert (len(train), len(test)) == (3, 3)
    assert not train & test


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    harms.write(tmp_path, "train", 1)
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        harms.write(tmp_path, "train", 1)
    with pytest.raises(ConfigError, match="at least one clip"):
        harms.write(tmp_path, "test", 0)


def test_the_command_writes_both_splits_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "set"), "--clips", "2", "--test", "1"]
    harms.main(arguments)
    said = capsys.readouterr().out.split()
    assert [len(read(file)) for file in said] == [2, 1]
    with pytest.raises(SystemExit) as end:
        harms.main(arguments)
    assert end.value.code == ConfigError.exit_code
    assert "nothing is overwritten" in capsys.readouterr().err
