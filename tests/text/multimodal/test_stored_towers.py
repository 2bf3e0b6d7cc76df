"""The folder of features at the level of the tower: the projector behind it trains, and no tower runs twice."""

import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import safe_open
from torch import nn

import modalign
from modalign.config import AdapterConfig
from modalign.model import Model
from modalign.objectives import DPO, SFT, Objective
from modalign.training import Trainer
from modalign_text.multimodal.answers import Answers
from modalign_text.multimodal.cases import in_prompt, in_responses, loaded
from modalign_text.multimodal.encoder import TowerEncoder
from modalign_text.multimodal.testing import tiny_multimodal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def run(model: Model, folder: Path, cache: Path | None, objective: Objective | None = None, modality: str = "image"):
    """Metrics of each step: two epochs over three media, in another order each."""
    Trainer(
        model=model,
        objective=objective or SFT(),
        data=[in_prompt(modality, seed) for seed in range(3)],
        output_dir=folder,
        max_steps=6,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        feature_cache=cache,
        quiet=True,
    ).train()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def passes(rows: list[dict[str, float]], modality: str = "image") -> list[float]:
    return [row[f"encoder/{modality}/passes"] for row in rows if f"encoder/{modality}/passes" in row]


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in rows if "loss" in row]


def opened(folder: Path, family: str) -> Model:
    """A model by default: of LLaVA the projector trains, of Qwen2.5-VL what lies behind the tower is a part of it."""
    model = loaded(folder, family)
    if family == "qwen2_5_vl":
        # a row of the table trains and the embeddings begin with it: not wholly frozen, as behind a projector
        cast(TowerEncoder, model.encoders["image"])._tabled = True
    assert not cast(TowerEncoder, model.encoders["image"]).frozen
    return model


@pytest.mark.parametrize(("family", "objective"), [("llava", SFT), ("llava", DPO), ("qwen2_5_vl", DPO)])
def test_a_second_run_with_a_training_projector_runs_no_tower(
    family: str, objective: type[Objective], folder: Path, tmp_path: Path
) -> None:
    plain, first, second = (
        run(opened(folder, family), tmp_path / name, cache, objective())
        for name, cache in (("plain", None), ("first", tmp_path / "cache"), ("second", tmp_path / "cache"))
    )
    assert passes(plain) == [1, 1, 1, 1, 1, 1]
    assert passes(first) == [1, 1, 1, 0, 0, 0]
    assert passes(second) == [0, 0, 0, 0, 0, 0]
    assert losses(first) == losses(second)
    assert losses(first) == pytest.approx(losses(plain), rel=1e-5)
    assert losses(first)[-1] != losses(first)[2]


def test_media_of_one_step_are_kept_each_by_itself(folder: Path, tmp_path: Path) -> None:
    counted = []
    for name, size in (("two", 2), ("one", 1)):
        Trainer(
            model=loaded(folder, "llava"),
            objective=DPO(),
            data=[in_responses("image"), in_prompt("image", 1)],
            output_dir=tmp_path / name,
            max_steps=2 // size,
            per_device_train_batch_size=size,
            feature_cache=tmp_path / "cache",
        ).train()
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        counted.append(sum(passes(rows)))
    assert counted == [3, 0]  # three media, in one step or in two


def test_only_what_the_projector_reads_is_stored(folder: Path, tmp_path: Path) -> None:
    run(loaded(folder, "llava"), tmp_path / "run", tmp_path / "cache")
    entries = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(entries) == 3
    for entry in entries:
        with safe_open(entry, framework="pt") as file:
            # of three layers' states, the pooled ones and the last, LLaVA reads the last but one
            assert list(file.keys()) == ["encoding.hidden_states.1"]


def test_another_projector_reads_what_is_stored_and_another_tower_does_not(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(loaded(folder, "llava"), tmp_path / "first", cache)
    projector, tower = loaded(folder, "llava"), loaded(folder, "llava")
    for model, part in ((projector, "multi_modal_projector"), (tower, "vision_tower")):
        value = next(value for name, value in model.named_parameters() if part in name)
        value.data.view(-1)[0] += 0.5
    assert passes(run(projector, tmp_path / "projector", cache)) == [0, 0, 0, 0, 0, 0]
    assert passes(run(tower, tmp_path / "tower", cache)) == [1, 1, 1, 0, 0, 0]


def test_settings_of_media_are_part_of_the_key(folder: Path, tmp_path: Path) -> None:
    run(loaded(folder, "llava"), tmp_path / "first", tmp_path / "cache")
    other = loaded(folder, "llava", media={"image": {"max_pixels": 10_000}})
    assert passes(run(other, tmp_path / "other", tmp_path / "cache")) == [1, 1, 1, 0, 0, 0]


def test_a_tower_that_trains_is_never_stored_and_the_log_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = run(loaded(folder, "llava", freeze=()), tmp_path / "run", tmp_path / "cache")
    assert passes(rows) == [1, 1, 1, 1, 1, 1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert caplog.text.count("the feature cache keeps nothing of image: its towers train") == 1


def test_a_damaged_answer_is_made_again(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    first = run(loaded(folder, "llava"), tmp_path / "first", cache)
    one, other, _ = sorted(cache.rglob("*.safetensors"))
    one.write_bytes(one.read_bytes()[:-9])
    shutil.copy(other, other.with_suffix(".copy"))
    second = run(loaded(folder, "llava"), tmp_path / "second", cache)
    assert sum(passes(second)) == 1
    assert "cannot be read" in caplog.text
    assert losses(first) == losses(second)


def test_with_adapters_what_lies_behind_the_projector_is_stored(folder: Path, tmp_path: Path) -> None:
    for name, wanted in (("first", [1, 1, 1, 0, 0, 0]), ("second", [0] * 6)):
        model = loaded(folder, "llava", adapter=AdapterConfig(r=2))
        assert passes(run(model, tmp_path / name, tmp_path / "cache", DPO())) == wanted


@pytest.mark.parametrize(
    ("family", "modality"),
    [
        *(("gemma3", "image"), ("smolvlm", "video"), ("qwen2_audio", "audio")),
        *(("qwen2_5_omni_thinker", "audio"), ("qwen3_omni_moe_thinker", "audio"), ("qwen3_omni_moe_thinker", "video")),
    ],
)
def test_every_family_is_stored(family: str, modality: str, folder: Path, tmp_path: Path) -> None:
    found = [
        run(loaded(folder, family), tmp_path / name, tmp_path / "cache", modality=modality)
        for name in ("first", "second")
    ]
    assert [sum(passes(rows, modality)) for rows in found] == [3, 0]
    assert losses(found[0]) == losses(found[1])


def test_a_family_run_whole_says_once_that_nothing_is_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = modalign.load(tiny_multimodal(tmp_path / "mllama", "mllama"))
    rows = run(model, tmp_path / "run", tmp_path / "cache")
    assert min(passes(rows)) > 0
    assert caplog.text.count("the feature cache keeps nothing of image: the decoder of this family") == 1


def test_a_tower_that_is_given_what_other_weights_make_is_not_stored() -> None:
    answers, queries, tower = Answers("image"), nn.Linear(2, 2), nn.Linear(2, 2)
    with answers.learning({"former": tower}) as given:
        tower(queries(torch.ones(2)))  # as a Q-Former is: its answer changes with queries that train
    assert answers.why_not("former") == "former is given what other weights make"
    assert given == {}


def test_what_no_file_can_hold_is_not_stored() -> None:
    class Odd(nn.Module):
        def forward(self, pixels: torch.Tensor) -> set[torch.Tensor]:
            return {pixels}

    answers, tower = Answers("image"), Odd()
    with answers.learning({"tower": tower}):
        tower(torch.ones(2))
    assert answers.why_not("tower") == "what tower returns has no form for a file: encoding is of builtins.set"
