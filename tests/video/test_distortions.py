"""Distortions change a clip in their own way and keep its shape; pairs of them are pairs of different clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor

from modalign.data import check, read
from modalign.errors import ConfigError
from modalign_video import distortion_pairs as pairs
from modalign_video.config import VideoSettings
from modalign_video.decoding import decode
from modalign_video.distortions import DISTORTIONS, distort, visible
from modalign_video.writing import mp4

FRAMES, SIDE = 8, 48


def moving(
    seed: int = 0, *, frames: int = FRAMES, height: int = SIDE, width: int = SIDE, still: bool = False
) -> Tensor:
    """A texture that slides to the right, with sharp edges and all colours: uint8 ``t 3 h w``."""
    made = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, height // 8, (width + 4 * frames) // 8 + 1, generator=made)
    wide = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    steps = [0 if still else 3 * number for number in range(frames)]
    return torch.stack([(40 + 175 * wide[:, :height, step : step + width]).byte() for step in steps])


def sharpness(frames: Tensor) -> float:
    values = frames.float()
    return float((values[..., 1:] - values[..., :-1]).square().mean())


@pytest.mark.parametrize("size", [(SIDE, SIDE), (33, 47)])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_distortion_keeps_shape_and_type_and_changes_the_clip(kind: str, size: tuple[int, int]) -> None:
    clip = moving(height=48, width=48)[:, :, : size[0], : size[1]]
    for seed in range(3):
        worse = distort(kind, clip, seed=seed)
        assert (worse.shape, worse.dtype) == (clip.shape, torch.uint8)
        assert visible(clip, worse)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_equal_seeds_distort_equally_and_leave_what_was_given(kind: str) -> None:
    clip = moving(1)
    before = clip.clone()
    assert torch.equal(distort(kind, clip, seed=3), distort(kind, clip, seed=3))
    assert torch.equal(clip, before)


def test_equal_frames_give_equal_bytes_wherever_memory_lies() -> None:
    clip, options = moving(1), {"crf": "40", "preset": "veryfast"}
    between = [torch.zeros(1)] * 8
    found: set[bytes] = set()
    for number in range(60):
        between[number % 8] = torch.ones(1 + (number * 7919) % 20011)  # else each clip would lie where the last one did
        found.add(mp4(clip, 25.0, options=options))
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["blur", "coarse", "faded"])
def test_what_smooths_makes_edges_weaker(kind: str) -> None:
    assert sharpness(distort(kind, moving())) < 0.7 * sharpness(moving())


@pytest.mark.parametrize(("kind", "least", "most"), [("frozen", 5, 6), ("dropped", 6, 6)])
def test_lost_frames_repeat_others(kind: str, least: int, most: int) -> None:
    for seed in range(6):
        worse = distort(kind, moving(), seed=seed)
        repeated = sum(torch.equal(one, other) for one, other in zip(worse[1:], worse[:-1], strict=True))
        assert least <= repeated <= most
        for frame in worse:  # nothing new is invented
            assert any(torch.equal(frame, one) for one in moving())


def test_a_tint_moves_one_colour_up_and_the_others_down() -> None:
    clip = moving()
    change = (distort("tinted", clip, seed=1).float() - clip.float()).mean((0, 2, 3))
    assert sorted(change.sign().tolist()) == [-1.0, -1.0, 1.0]


def test_noise_is_new_in_every_frame_and_about_as_strong_as_it_says() -> None:
    grey = torch.full((FRAMES, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    added = distort("noise", grey, seed=2).float() - 128
    assert 9.5 < float(added.std()) < 25.5
    first, second = added[0].flatten(), added[1].flatten()
    # two independent draws of 6912: a correlation of 5 standard errors is 5 / sqrt(6912) = 0.06
    assert abs(float((first * second).mean() / (first.std() * second.std()))) < 0.06


def test_the_old_codec_leaves_its_blocks() -> None:
    """Differences across the borders of 8 by 8 blocks grow against those inside them."""

    def at_borders(frames: Tensor) -> float:
        steps = (frames.float()[..., 1:] - frames.float()[..., :-1]).abs().mean((0, 1, 2))  # between columns
        border = (torch.arange(SIDE - 1) % 8) == 7
        return float(steps[border].mean() / steps[~border].mean())

    made = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(
        rearrange(torch.rand(3, 7, 7, generator=made), "c h w -> 1 c h w"), size=(SIDE, SIDE), mode="bicubic"
    )
    clip = (255 * soft.clamp(0, 1)).byte().repeat(FRAMES, 1, 1, 1)
    assert at_borders(distort("blocks", clip)) > 1.5 * at_borders(clip)


def test_freezing_what_stands_still_is_not_visible() -> None:
    still = moving(still=True)
    assert not visible(still, distort("frozen", still))


@pytest.mark.parametrize(
    ("kind", "frames", "says"),
    [
        ("melted", torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "no distortion 'melted'; there are blur, noise"),
        ("blur", torch.zeros(2, 3, 8, 8), r'uint8 "t 3 h w", not torch.float32'),
        ("blur", torch.zeros(3, 8, 8, dtype=torch.uint8), r"not torch.uint8 \(3, 8, 8\)"),
    ],
)
def test_what_cannot_be_distorted_is_refused(kind: str, frames: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        distort(kind, frames)


# --- as a data set -----------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips of 40 frames at 25 per second."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(("one", "two", "three")):
        clip = moving(number, frames=40, height=72, width=96)
        (folder / f"{name}.mp4").write_bytes(mp4(clip, 25.0))
    return folder


def build(folder: Path, clips: Path, *more: str) -> None:
    held_out, train = str(clips / "three.mp4"), [str(clips / "one.mp4"), str(clips / "two.mp4")]
    counts = ["--pieces", "3", "--test_pieces", "2"]
    pairs.main([str(folder), "--clips", *train, "--held_out", held_out, *counts, *more])


def test_whole_clips_and_one_kind_are_held_out(tmp_path: Path, clips: Path) -> None:
    build(tmp_path / "set", clips, "--held_out_kind", "noise")
    kinds: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    for split in ("train", "test", "unseen"):
        assert not check(read(tmp_path / "set" / f"{split}.jsonl")).bad_rows
        rows = [json.loads(line) for line in (tmp_path / "set" / f"{split}.jsonl").read_text().splitlines()]
        kinds[split] = {row["metadata"]["kind"] for row in rows}
        files[split] = {row[side][0]["content"][0]["video"] for row in rows for side in ("chosen", "rejected")}
    assert kinds == {
        "train": DISTORTIONS.keys() - {"noise"},
        "test": DISTORTIONS.keys() - {"noise"},
        "unseen": {"noise"},
    }
    assert {name.split("/")[1].split("-")[0] for name in files["train"]} == {"one", "two"}
    assert {name.split("/")[1].split("-")[0] for name in files["test"] | files["unseen"]} == {"three"}


def test_the_chosen_piece_is_the_clip_as_it_was(tmp_path: Path, clips: Path) -> None:
    build(tmp_path / "set", clips)
    cut = pairs.Cut()
    (whole,) = (one for one in pairs.pieces(clips / "three.mp4", 1, cut))
    found = next(one for one in read(tmp_path / "set" / "unseen.jsonl") if str(one.id).startswith(whole.name))
    (part,) = found.chosen.segments()
    (other,) = found.rejected.segments()
    seen, worse = (decode(one, VideoSettings(frames=cut.frames)).tensor for one in (part, other))
    assert seen.shape == (8, 3, 48, 48)
    near = (seen.float() - whole.frames.float()).abs().mean()
    assert near < 4  # the file is H.264 of good quality
    assert (worse.float() - whole.frames.float()).abs().mean() > near + 1


def test_pieces_are_of_many_places_and_times(clips: Path) -> None:
    found = [one.frames for one in pairs.pieces(clips / "one.mp4", 12, pairs.Cut())]
    assert len({one.sum().item() for one in found}) == 12


def test_pieces_are_near_and_far_slow_and_fast(clips: Path) -> None:
    found = list(pairs.pieces(clips / "one.mp4", 24, pairs.Cut(fps=(5.0, 12.5), edges=(56, 72))))
    assert {one.fps for one in found} == {5.0, 12.5}
    assert all(pairs.motion(one.frames) >= 0.5 for one in found)


def test_what_stands_still_gives_no_piece_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    still = tmp_path / "still.mp4"
    still.write_bytes(mp4(moving(frames=40, height=72, width=96, still=True), 25.0))
    assert list(pairs.pieces(still, 3, pairs.Cut())) == []
    assert "still.mp4 gives 0 pieces of 3" in caplog.text


def test_two_versions_of_one_clip_are_cut_alike(tmp_path: Path, clips: Path) -> None:
    better = moving(2, frames=40, height=72, width=96)
    (clips / "worse").mkdir()
    (clips / "worse" / "bad.mp4").write_bytes(mp4(distort("noise", better), 25.0))
    build(tmp_path / "set", clips, "--versions", str(clips / "three.mp4"), str(clips / "worse" / "bad.mp4"))
    found = read(tmp_path / "set" / "versions.jsonl")
    assert len(found) == 2
    for one in found:
        seen, worse = (decode(next(side.segments()), VideoSettings(frames=8)).tensor for side in one.responses)
        # the same place: noise apart they are the same picture
        assert (seen.float() - worse.float()).mean().abs() < 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda clips: ["--clips", str(clips / "none.mp4"), "--held_out", str(clips / "one.mp4")], "no clip there"),
        (lambda clips: ["--clips", str(clips), "--held_out", str(clips / "one.mp4")], "one twice"),
        (
            lambda clips: ["--clips", str(clips / "one.mp4"), "--held_out", str(clips / "two.mp4"), "--size", "400"],
            "of 400 pixels",
        ),
    ],
)
def test_what_cannot_be_cut_is_said(tmp_path: Path, clips: Path, change, says: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        pairs.main([str(tmp_path / "set"), *change(clips)])
    assert end.value.code == ConfigError.exit_code
    assert says in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "set", clips)
    with pytest.raises(SystemExit):
        build(tmp_path / "set", clips)
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_broken_clip_is_named(tmp_path: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips / "one.mp4").write_bytes(b"no clip")
    with pytest.raises(SystemExit):
        build(tmp_path / "set", clips)
    assert "one.mp4" in capsys.readouterr().err


def test_a_clip_that_is_too_short_is_said(clips: Path) -> None:
    with pytest.raises(ConfigError, match="at least 500 frames"):
        list(pairs.pieces(clips / "one.mp4", 1, pairs.Cut(frames=500)))
