"""Reward models that see: two lines load what a run saved, and plain transformers loads what is beneath the head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedModel

import modalign
from modalign import RewardModel
from modalign.config import AdapterConfig
from modalign.data import read
from modalign.model import Model
from modalign.objectives import BradleyTerry
from modalign.training import Trainer
from modalign_image.testing import tiny_vision
from modalign_text.assembly import LanguageAssembly
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def native(folder: Path, adapter: AdapterConfig | None = None) -> Model:
    return modalign.load(tiny_multimodal(folder / "llava", scale=4.0), adapter=adapter)


def composed(folder: Path) -> Model:
    tiny_vision(folder / "clip", "clip")
    encoders = {"image": {"path": str(folder / "clip"), "type": "vision", "connector": {"type": "mlp"}}}
    return modalign.load(tiny_model(folder / "llama", "llama", scale=4.0), encoders=encoders)


MODELS: dict[str, tuple[Callable[[Path], Model], type]] = {
    "native": (native, AutoModelForMultimodalLM),
    "native with an adapter": (lambda folder: native(folder, AdapterConfig(r=2)), AutoModelForMultimodalLM),
    "composed": (composed, AutoModelForCausalLM),
}


def question(colour: str) -> list[dict[str, object]]:
    content = [{"type": "image", "image": f"{colour}.png"}, {"type": "text", "text": "which colour?"}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("name", MODELS)
def test_a_reward_model_that_sees_comes_back(name: str, tmp_path: Path) -> None:
    make, plain = MODELS[name]
    for colour, pixel in COLOURS.items():
        Image.new("RGB", (40, 48), pixel).save(tmp_path / f"{colour}.png")
    rows = [{"prompt": question(colour), "chosen": colour, "rejected": "green, I think"} for colour in COLOURS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    model = make(tmp_path)
    Trainer(
        model=model,
        objective=BradleyTerry(),
        data=read(tmp_path / "pairs.jsonl"),
        output_dir=tmp_path / "run",
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        quiet=True,
    ).train()

    judge = RewardModel.load(tmp_path / "run/final", root=tmp_path)
    found = judge(question("red"), "red")

    assert isinstance(found, dict)
    wanted = RewardModel(model, root=tmp_path)
    assert found == wanted(question("red"), "red")
    assert found != judge(question("blue"), "red")  # it looks
    assert found != RewardModel(_again(make, tmp_path, judge), root=tmp_path)(question("red"), "red")  # it learned

    library = cast(LanguageAssembly, model.assembly).library.eval()
    beneath = cast(PreTrainedModel, plain.from_pretrained(tmp_path / "run/final")).eval()
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(beneath(input_ids=ids).logits, library(input_ids=ids).logits, rtol=0, atol=1e-6)


def _again(make: Callable[[Path], Model], folder: Path, judge: RewardModel) -> Model:
    """The model as it was before the step, with the head that was trained."""
    model = make(folder)
    model.heads["reward"] = judge.heads["reward"]
    return model
