"""Understanding and generation in one run: every objective starts where it must, learns, saves and loads."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForMultimodalLM

import modalign
from modalign.assembler import Sample, assemble, encode
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError
from modalign.model import Model
from modalign.objectives import DPO, KTO, SFT, BradleyTerry
from modalign.objectives.base import Objective
from modalign.training import Trainer
from modalign_text.multimodal.native.cases import FAMILIES, SMALL, both, draws, loaded, reads
from modalign_text.multimodal.testing import tiny_multimodal

OBJECTIVES: Mapping[str, tuple[Objective, float | None]] = {
    "sft": (SFT(), None),
    "dpo": (DPO(beta=0.1), math.log(2)),
    "kto": (KTO(beta=0.1), 0.5),
    "reward": (BradleyTerry(), None),
}
ROWS = [reads("a"), draws("b"), both("c"), draws("d")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


def trainer(model: Model, objective: Objective, run: Path, **settings: object) -> Trainer:
    given: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "quiet": True,
        **settings,
    }
    return Trainer(model=model, objective=objective, data=ROWS, output_dir=run, **given)


def lines(run: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "loss" in line]


@torch.no_grad()
def scored(model: Model) -> dict[str, torch.Tensor]:
    rows = [Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=2) for one in ROWS]
    found = model.eval()(assemble(rows, share=model.shares, pad=model.assembly.preparer.pad), Draws())
    return {"logps": found.logps, **found.rewards}


@pytest.mark.parametrize("adapted", [True, False], ids=["lora", "whole"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_run_of_rows_to_words_and_rows_to_pictures(
    folder: Path, tmp_path: Path, family: str, name: str, adapted: bool
) -> None:
    model = loaded(folder, family, **({"adapter": AdapterConfig(r=4)} if adapted else {}))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    objective, start = OBJECTIVES[name]
    trainer(model, objective, tmp_path / "run").train()
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    if start is not None:
        assert losses[0] == pytest.approx(start, rel=1e-6)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    moved = {
        key for key, value in model.state_dict().items() if key not in before or not torch.equal(value, before[key])
    }
    assert moved
    assert not [key for key in moved if "vqmodel" in key or ".vq." in key]
    if adapted:
        assert not [key for key in moved if "lora_" not in key and not key.startswith("heads.")]
    elif name != "reward" and family == "janus":
        parts = ("table", "aligner", "head.vision_head")
        assert all(any(key.startswith(f"decoders.image.{part}") for key in moved) for part in parts)
    model.eval().save(tmp_path / "saved")
    again = modalign.load(tmp_path / "saved")
    for key, value in scored(model).items():
        torch.testing.assert_close(scored(again)[key], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_is_the_library_s_own_and_says_and_draws_the_same(
    folder: Path, tmp_path: Path, family: str
) -> None:
    model = loaded(
        folder,
        family,
        adapter=AdapterConfig(r=4),
        options={**SMALL.get(family, {}).get("options", {}), "image_weight": 0.5},
    )
    trainer(model, SFT(), tmp_path / "run", max_steps=20).train()
    model.save(tmp_path / "adapters")
    model.save(tmp_path / "merged", merge=True)
    ways = [model, modalign.load(tmp_path / "adapters"), modalign.load(tmp_path / "merged")]
    one, *others = (scored(way)["logps"] for way in ways)
    for other in others:
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-4)
    AutoModelForMultimodalLM.from_pretrained(tmp_path / "merged")  # plain transformers reads it
    if family != "chameleon":
        prompt = [draws().prompt]
        said = [way.generate(prompt, max_new_tokens=8, seed=2, max_media=1) for way in ways]
        shown = [[(part.modality, part.digest) for part in each[0].parts()] for each in said]
        assert [name for name, _ in shown[0]] != ["text"]
        assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_are_kept_on_disk_and_made_once(folder: Path, tmp_path: Path, family: str) -> None:
    passes, losses = [], []
    for number in range(2):
        model = loaded(folder, family, adapter=AdapterConfig(r=4))
        calls: list[int] = []
        vq = cast(Any, model.assembly).library.model.vqmodel
        encode = vq.encode
        vq.encode = lambda *args, encode=encode, calls=calls: calls.append(1) or encode(*args)
        trainer(model, DPO(), tmp_path / f"run{number}", feature_cache=tmp_path / "cache", max_steps=3).train()
        passes.append(len(calls))
        losses.append([line["loss"] for line in lines(tmp_path / f"run{number}")])
    drawn = 4  # pictures 1 to 4; of Janus too, which reads its prompts' by another tower
    assert passes == [drawn, 0]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_worker_processes_change_nothing(folder: Path, tmp_path: Path, family: str) -> None:
    found = []
    for workers in (0, 2):
        model = loaded(folder, family, adapter=AdapterConfig(r=4))
        run = tmp_path / f"run{workers}"
        trainer(model, DPO(), run, max_steps=2, dataloader_num_workers=workers).train()
        found.append([line["loss"] for line in lines(run)])
    assert found[0] == found[1]


def test_the_parts_that_draw_freeze_by_name(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "janus", freeze=["encoders", "connectors.image", "decoders.image"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer(model, DPO(), tmp_path / "run", max_steps=2).train()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert not [key for key in moved if key.startswith("decoders.image")]


def test_a_frozen_language_model_passes_the_gradient_to_what_embeds_codes(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "janus", freeze=["encoders", "backbone", "decoders"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer(model, DPO(), tmp_path / "run", max_steps=2).train()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"decoders.image.table.weight", "decoders.image.aligner.fc1.weight"} <= moved
    assert not [key for key in moved if key.startswith(("backbone", "decoders.image.head", "decoders.text"))]


def test_adapters_reach_what_draws(folder: Path) -> None:
    model = loaded(folder, "janus", adapter=AdapterConfig(r=4))
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    for part in ("decoders.image.aligner", "decoders.image.head", "backbone"):
        assert [name for name in names if name.startswith(part)], part
    assert not [name for name in names if name.startswith("encoders")]


def test_rows_of_words_alone_leave_what_draws_with_a_gradient_of_zero(folder: Path) -> None:
    model = loaded(folder, "janus")
    pair = replace(reads(), id="words")
    sample = Sample(comparison=pair, encoded=model.assembly.preparer.encode(pair), own=2)
    model(assemble([sample], share=True), Draws()).logps.sum().backward()
    decoder = cast(Any, model.decoders["image"])
    assert decoder.head.vision_head.weight.grad.abs().max() == 0  # a process must not wait for it


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_says_what_it_is(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    said = str(model.describe())
    assert "codes of 32 -> image" in said
    assert model.assembly.takes == {"text", "image"}


def test_other_checkpoints_have_no_such_settings(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such settings"):
        modalign.load(tiny_multimodal(folder / "llava", "llava"), options={"image_weight": 1.0})


@pytest.mark.parametrize("family", FAMILIES)
def test_two_pictures_of_the_same_codes_are_no_pair(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    one = draws().responses[0]
    with pytest.raises(DataError, match="the same once encoded"):
        encode(Comparison.pair(draws().prompt, one, one), model.assembly.preparer, DPO().needs)
