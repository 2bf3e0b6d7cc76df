"""Reward and moderation models of clips from one command each: SafeSora's rows, the oracle's pairs, distorted clips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from ruamel.yaml import YAML

from modalign.cli import main
from modalign.cli.train import configure
from modalign.content import Part
from modalign.data import read
from modalign.files import File
from modalign.reward import RewardModel
from modalign.training.job import run
from modalign_text.testing import tiny_model
from modalign_video.distortion_pairs import main as distort_clips
from modalign_video.judge import Sizes, save_judge
from modalign_video.safesora import HARMS
from modalign_video.safesora_sample import sample
from modalign_video.testing import tiny_video
from modalign_video.writing import mp4

EXAMPLES = Path(__file__).parents[2] / "examples"
DIMENSIONS = (
    "helpfulness",
    "harmlessness",
    "instruction_following",
    "correctness",
    "informativeness",
    "aesthetics",
)
SMALL = Sizes(size=16, patch=8, width=32, layers=1)


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge") / "judge", SMALL)


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 0


def metrics(folder: Path) -> Mapping[str, float]:
    """The last of each."""
    found: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        found |= json.loads(line)
    return found


def clip_of(data: Path) -> dict[str, object]:
    """A response of the data as content blocks."""
    (part,) = read(data)[0].responses[0].segments()
    assert isinstance(part, Part)
    return {"role": "assistant", "content": [{"type": "video", "video": cast(File, part.value).name}]}


# --- SafeSora ----------------------------------------------------------------------------------------------------


def test_one_command_trains_one_model_of_all_six_dimensions(tmp_path: Path, judge: Path) -> None:
    data, out = sample(tmp_path, "pairs", 6), tmp_path / "run"
    flags = ["--objective.dimensions", *DIMENSIONS, "--max_steps", 2, "--per_device_train_batch_size", 3]
    command("train", "reward", "--model", judge, "--data", data, "--eval_data", data, *flags, "--output_dir", out)
    found = metrics(out)
    for name in DIMENSIONS:
        assert 0 <= found[f"eval_accuracy/{name}_low"] <= found[f"eval_accuracy/{name}"] <= 1
    command("report", out)
    page = (out / "report.html").read_text()
    for name in DIMENSIONS:
        assert f"{name}: reliability" in page
    assert "Agreement with people" in page
    model = RewardModel.load(out / "final", root=tmp_path)
    assert model.dimensions == DIMENSIONS
    verdict = model([{"role": "user", "content": "Two red circles"}], [clip_of(data)])
    assert isinstance(verdict, dict)
    assert verdict.keys() == set(DIMENSIONS)


def test_one_command_trains_all_labels_of_harm(tmp_path: Path, judge: Path) -> None:
    data, out = sample(tmp_path, "labels", 6), tmp_path / "run"
    flags = ["--objective.dimensions", *HARMS, "is_safe", "--max_steps", 2, "--per_device_train_batch_size", 3]
    command("train", "moderation", "--model", judge, "--data", data, "--eval_data", data, *flags, "--output_dir", out)
    assert {f"eval_accuracy/{name}" for name in (*HARMS, "is_safe")} <= metrics(out).keys()
    command("report", out)
    command("evaluate", out, "--data", data, "--report", tmp_path / "test.html")
    for page in ((out / "report.html").read_text(), (tmp_path / "test.html").read_text()):
        for name in (*HARMS, "is_safe"):
            assert f"{name}: reliability" in page
        for what in ("AUROC", "F1", "counts of each label, called and carried", "false alarm"):
            assert what in page
    verdict = RewardModel.load(out / "final", root=tmp_path)([{"role": "user", "content": "Two"}], [clip_of(data)])
    assert isinstance(verdict, dict)
    assert list(verdict) == [*HARMS, "is_safe"]
    assert all(0 < value < 1 for value in verdict.values())


@pytest.mark.parametrize("trains", [False, True])
def test_the_tower_is_frozen_unless_a_setting_says_otherwise(tmp_path: Path, judge: Path, trains: bool) -> None:
    data = sample(tmp_path, "pairs", 2)
    flags = ["--model", str(judge), "--data", str(data), "--max_steps", "1", "--output_dir", str(tmp_path / "run")]
    flags += ["--objective.dimensions", "helpfulness", "--learning_rate", "1e-2"]
    config = configure("reward", flags + (["--model.freeze", "decoders"] if trains else []))
    assert config is not None
    run(config)
    file = "encoders/video/model.safetensors"
    assert ((judge / file).read_bytes() != (tmp_path / "run" / "final" / file).read_bytes()) is trains


@pytest.mark.parametrize(
    ("name", "kind", "family", "encoder"),
    [
        ("safesora_reward.yaml", "pairs", "frames-over-clip", "frames"),
        ("safesora_reward.yaml", "pairs", "videomae", "video"),
        ("safesora_moderation.yaml", "labels", "frames-over-clip", "frames"),
    ],
)
def test_the_configs_of_the_examples_train(tmp_path: Path, name: str, kind: str, family: str, encoder: str) -> None:
    """As they stand, but for tiny models, little data and one step."""
    document = YAML(typ="safe").load((EXAMPLES / name).read_text())
    tower = document["model"]["encoders"]["video"]
    tower["path"], document["model"]["path"] = str(tiny_video(tmp_path / "t", family)), str(tiny_model(tmp_path / "m"))
    if encoder == "video":
        tower["type"], tower["options"], document["model"]["media"] = "video", {}, {"video": {"frames": 4}}
    elif family == "frames-over-clip":
        tower["options"]["select"] = "patch"
        tower["options"] = {"spatial": tower["options"]["spatial"]}
    with (tmp_path / name).open("w") as file:
        YAML().dump(document, file)
    data = str(sample(tmp_path / "data", kind, 4))  # type: ignore[arg-type]
    flags = ["--data", data, "--eval_data", data, "--max_steps", "1", "--output_dir", str(tmp_path / "run")]
    config = configure(str(tmp_path / name), [*flags, "--feature_cache", str(tmp_path / "features")])
    assert config is not None
    assert run(config).steps == 1


# --- the oracle's pairs ------------------------------------------------------------------------------------------


def test_a_tiny_model_learns_to_judge_the_oracles_clips(tmp_path: Path, judge: Path) -> None:
    """In seconds it cannot be good; it must be better than it was, on pairs it never saw."""
    flags = ["--model.freeze", "decoders", "--data", "oracle", "--data.split", "video/shared-defect"]
    flags += ["--eval_data", "oracle", "--eval_data.split", "video/shared-defect", "--eval_data.revision", "1"]
    flags += ["--eval_data.limit", "100", "--per_device_eval_batch_size", "50", "--learning_rate", "3e-3"]
    flags += ["--per_device_train_batch_size", "32", "--max_steps", "60", "--warmup_steps", "10"]
    command("train", "reward", "--model", judge, *flags, "--output_dir", tmp_path / "run")
    assert metrics(tmp_path / "run")["eval_loss"] < 0.66  # log 2 = 0.693 is what it starts with


# --- distorted clips ---------------------------------------------------------------------------------------------


def test_distorted_clips_are_told_from_pristine_ones(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    (tmp_path / "clips").mkdir()
    for name in ("one", "two", "three"):
        wide = torch.rand(3, 12, 24, generator=made).repeat_interleave(6, 1).repeat_interleave(6, 2)
        clip = torch.stack([(30 + 190 * wide[:, :, step : step + 96]).byte() for step in range(0, 48, 2)])
        (tmp_path / "clips" / f"{name}.mp4").write_bytes(mp4(clip, 25.0))
    clips = [tmp_path / "clips" / f"{name}.mp4" for name in ("one", "two", "three")]
    sizes = ["--pieces", 6, "--test_pieces", 16, "--size", 16]
    distort_clips([str(one) for one in (tmp_path / "q", "--clips", *clips[:2], "--held_out", clips[2], *sizes)])
    judge = save_judge(tmp_path / "judge", Sizes(size=16, patch=4, width=32, layers=1))
    flags = ["--model.freeze", "decoders", "--learning_rate", "3e-3", "--per_device_train_batch_size", 16]
    flags += ["--data", tmp_path / "q/train.jsonl", "--eval_data", tmp_path / "q/test.jsonl", "--max_steps", 80]
    flags += ["--per_device_eval_batch_size", 32, "--warmup_steps", 10, "--output_dir", tmp_path / "run"]
    command("train", "reward", "--model", judge, *flags)
    found = metrics(tmp_path / "run")
    assert found["eval_accuracy/reward_low"] > 0.5  # better than chance on a clip it never saw
