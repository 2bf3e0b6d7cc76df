"""Checkpoints that listen and speak: what reads and answers is taken out of the whole, and the rest is left."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import modalign
from modalign.assembler import Sample, assemble
from modalign.config import AdapterConfig
from modalign.draws import Draws
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_text.config import THINKERS
from modalign_text.multimodal.cases import in_prompt, loaded
from modalign_text.multimodal.testing import tiny_multimodal

WHOLE = {
    "qwen2_5_omni": ("Qwen2_5OmniConfig", "Qwen2_5OmniForConditionalGeneration"),
    "qwen3_omni_moe": ("Qwen3OmniMoeConfig", "Qwen3OmniMoeForConditionalGeneration"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


def whole(folder: Path, family: str) -> Path:
    """A tiny checkpoint of the whole: the thinker of `tiny_multimodal`, and something that speaks."""
    place = folder / family
    if place.is_dir():
        return place
    thinker = tiny_multimodal(folder / f"{family}_thinker", f"{family}_thinker", scale=4.0)
    config, kind = (getattr(transformers, name) for name in WHOLE[family])
    part = getattr(transformers, THINKERS[family]).from_pretrained(thinker)
    with torch.device("meta"):
        model = kind(config(thinker_config=part.config.to_dict(), enable_audio_output=False))
    model.thinker = part
    model.save_pretrained(place)
    transformers.AutoProcessor.from_pretrained(thinker).save_pretrained(place)
    weights = load_file(place / "model.safetensors")
    assert all(name.startswith("thinker.") for name in weights)
    save_file({**weights, "talker.codec_head.weight": torch.zeros(2, 2)}, place / "model.safetensors", {"format": "pt"})
    said = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**said, "enable_audio_output": True}))
    (place / "spk_dict.pt").write_bytes(b"never opened")
    return place


def logps(model: Model, modality: str) -> torch.Tensor:
    pair = in_prompt(modality)
    one = Sample(comparison=pair, encoded=model.assembly.preparer.encode(pair), own=2)
    with torch.no_grad():
        return model.eval()(assemble([one], share=True, pad=model.assembly.preparer.pad), Draws()).logps


def test_every_whole_has_a_case() -> None:
    assert WHOLE.keys() == THINKERS.keys()


@pytest.mark.parametrize("family", WHOLE)
def test_the_thinker_of_the_whole_is_the_thinker(family: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = whole(folder, family)
    with caplog.at_level("INFO", "modalign"):
        model = modalign.load(place)
    assert f"its {THINKERS[family]} is loaded" in caplog.text
    assert not [one for one in caplog.records if one.levelname == "WARNING" and one.name == "modalign"]
    alone = loaded(folder, f"{family}_thinker")
    for modality in ("audio", "image", "video"):
        assert torch.equal(logps(model, modality), logps(alone, modality))


@pytest.mark.parametrize("family", WHOLE)
def test_a_whole_of_an_older_name_is_known(family: str, folder: Path, tmp_path: Path) -> None:
    place = whole(folder, family)
    for file in place.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = json.loads((place / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "architectures": ["OmniModel"]}))
    assert logps(modalign.load(tmp_path), "audio").isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"adapter": AdapterConfig(r=2)}], ids=["whole", "adapter"])
def test_what_was_trained_comes_back(settings: dict[str, object], folder: Path, tmp_path: Path) -> None:
    model = modalign.load(whole(folder, "qwen2_5_omni"), **settings)
    Trainer(model=model, objective=DPO(), data=[in_prompt("audio")], output_dir=tmp_path / "run", max_steps=1).train()
    again = modalign.load(tmp_path / "run/final")
    torch.testing.assert_close(logps(again, "audio"), logps(model, "audio"))
