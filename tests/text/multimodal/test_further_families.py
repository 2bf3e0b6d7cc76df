"""Families beyond the first: decoders that cannot share a prompt, processors that write a medium in other ways."""

import math
from pathlib import Path

import pytest
import torch

from modalign.assembler import Sample, assemble
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_text.multimodal.cases import PLACES, in_prompt, loaded, whole_logps
from modalign_text.multimodal.further import FURTHER

SHARES = {"idefics3": True, "internvl": True, "qwen3_vl": True, "qwen3_5": False, "mllama": False}
WHY = {"qwen3_5": "a state that runs over the row", "mllama": "cross_attention_states"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("further")


def test_the_table_is_whole() -> None:
    assert SHARES.keys() == FURTHER.keys()


def sample(model: Model, place: str) -> Sample:
    pair = PLACES[place]("image")
    return Sample(comparison=pair, encoded=model.assembly.preparer.encode(pair), own=2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FURTHER)
def test_rows_equal_the_whole_model(folder: Path, family: str, place: str) -> None:
    model = loaded(folder, family).eval()
    assert model.shares == SHARES[family]
    one = sample(model, place)
    expected = torch.cat([values for each in one.encoded for values in whole_logps(model, each)])
    for share in {False, model.shares}:
        with torch.no_grad():
            found = model(assemble([one], share=share, pad=model.assembly.preparer.pad), Draws())
        torch.testing.assert_close(found.units["text"].values.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("family", FURTHER)
def test_what_a_picture_shows_changes_the_answer(folder: Path, family: str) -> None:
    model = loaded(folder, family).eval()
    logps = []
    for seed in (0, 7):
        pair = in_prompt("image", seed)
        one = Sample(comparison=pair, encoded=model.assembly.preparer.encode(pair), own=2)
        with torch.no_grad():
            logps.append(model(assemble([one], share=model.shares, pad=model.assembly.preparer.pad), Draws()).logps)
    assert (logps[0] - logps[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", [family for family, shares in SHARES.items() if not shares])
def test_a_family_that_cannot_share_says_why_and_trains(folder: Path, family: str, tmp_path: Path) -> None:
    model = loaded(folder, family)
    assert model.backbone is not None
    assert WHY[family] in str(model.backbone.reason)
    result = Trainer(
        model=model,
        objective=DPO(),
        data=[PLACES[place]("image") for place in PLACES],
        output_dir=tmp_path / "run",
        max_steps=3,
        per_device_train_batch_size=3,
        learning_rate=1e-3,
    ).train()
    assert result.metrics["loss"] < math.log(2) - 1e-3
    with pytest.raises(ModelError):
        loaded(folder, family, sharing="mask")


def test_the_whole_model_counts_the_media_of_every_row(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "mllama")
    result = Trainer(
        model=model, objective=DPO(), data=[in_prompt("image")], output_dir=tmp_path / "run", max_steps=1
    ).train()
    # one picture for chosen and rejected, policy and reference: nothing can be shared
    assert result.metrics["encoder/image/passes"] == 4.0


def test_the_whole_model_writes_with_media(folder: Path) -> None:
    model = loaded(folder, "mllama")
    prompts = [in_prompt("image").prompt, in_prompt("image", 3).prompt]
    assert len(model.generate(prompts, max_new_tokens=4)) == 2
