"""With `precompute_features` all is encoded before the first step, and what encodes leaves memory until it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import huggingface_hub.constants
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from modalign import load
from modalign.config import AdapterConfig
from modalign.content import Message, Part
from modalign.data import read
from modalign.decoders.denoiser import Denoiser
from modalign.errors import ConfigError, ModelError
from modalign.integrations.diffusers.parts import place_of
from modalign.model import Model
from modalign.objectives import DPO, DRaFT
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer, TrainingConfig
from modalign_image.generators.testing import stable_diffusion_3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion_3(tmp_path_factory.mktemp("sd3"))


def tiny(folder: Path, *, adapter: bool = True) -> Model:
    how = {"adapter": AdapterConfig(r=2)} if adapter else {}
    return load(str(folder), options={"height": 16, "width": 16}, **how)


def train(model: Model, run: Path, **settings: object) -> dict[str, torch.Tensor]:
    Trainer(
        model=model,
        objective=DPO(beta=0.05),
        data=read("oracle", split="image/shared-defect", limit=3),
        eval_data=read("oracle", split="image/clean", limit=2),
        config=TrainingConfig.model_validate(
            {"output_dir": run, "max_steps": 2, "per_device_train_batch_size": 3, "learning_rate": 1e-3, **settings}
        ),
        quiet=True,
    ).train()
    return {name: value.detach().clone() for name, value in model.trainable().items()}


def denoiser(model: Model) -> Denoiser:
    return cast(Denoiser, model.decoders["image"].denoiser)


def held(model: Model) -> int:
    """Numbers that the readers hold in memory."""
    return sum(value.numel() for part in denoiser(model).readers.values() for value in part.parameters())


def written(model: Model) -> torch.Tensor:
    asked = [[Message(role="user", parts=(Part(modality="text", value="two red squares"),))]]
    (response,) = model.generate(asked, num_inference_steps=2)
    return cast(torch.Tensor, next(response.parts()).value)


def test_it_trains_alike_without_what_encodes(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, model = tiny(folder), tiny(folder)
    assert held(model) > 0
    expected = train(plain, tmp_path / "plain", draws={"prompt_dropout": 0.5})
    found = train(
        model,
        tmp_path / "run",
        draws={"prompt_dropout": 0.5},
        feature_cache=tmp_path / "kept",
        precompute_features=True,
    )
    assert held(model) == 0
    assert denoiser(model).away
    assert "is loaded for it" not in caplog.text  # nothing was missing, the prompt that asks for nothing included
    for name, value in expected.items():
        assert torch.equal(value, found[name])
    losses = [
        [line.split('"perf')[0] for line in (tmp_path / run / "metrics.jsonl").read_text("utf-8").splitlines()]
        for run in ("plain", "run")
    ]
    assert losses[0] == losses[1]
    torch.testing.assert_close(written(model), written(plain), rtol=0, atol=0)  # they come back where they are needed
    assert held(model) == held(plain)


def test_a_whole_pipeline_is_saved_though_parts_were_away(folder: Path, tmp_path: Path) -> None:
    model = tiny(folder, adapter=False)
    train(model, tmp_path / "run", feature_cache=tmp_path / "kept", precompute_features=True)
    assert denoiser(model).away
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "run" / "final")
    there = DiffusionPipeline.from_pretrained(folder)
    for name in ("vae", "text_encoder"):
        for one, other in zip(getattr(pipe, name).parameters(), getattr(there, name).parameters(), strict=True):
            assert torch.equal(one, other)
    again = train(model, tmp_path / "again")  # a second run of the same model has all of it
    assert again
    assert held(model) > 0


def test_an_id_lies_in_the_folder_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for commit in ("a" * 40, "b" * 40):
        place = tmp_path / "models--org--sd3/snapshots" / commit
        place.mkdir(parents=True)
        (place / "model_index.json").write_text("{}")  # of the rest of a repository a pipeline has not every file
        (place.parent.parent / "refs").mkdir(exist_ok=True)
        (place.parent.parent / "refs/main").write_text(commit)
        assert place_of("org/sd3") == place
    assert place_of("org/sd3", "a" * 40).name == "a" * 40
    monkeypatch.chdir(tmp_path)
    assert place_of("models--org--sd3").is_absolute()


def test_parts_that_changed_on_disk_are_not_taken_for_those_that_left(folder: Path, tmp_path: Path) -> None:
    own = stable_diffusion_3(tmp_path / "own")
    model = tiny(own)
    train(model, tmp_path / "run", feature_cache=tmp_path / "kept", precompute_features=True)
    (own / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="had left memory, and cannot be loaded again"):
        written(model)


def test_what_cannot_be_made_ahead_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^feature_cache: .*precompute_features"):
        train(tiny(folder), tmp_path / "run", precompute_features=True)
    settings = TrainingConfig(output_dir=tmp_path, feature_cache=tmp_path / "kept", precompute_features=True)
    with pytest.raises(ConfigError, match="no decoder of this model reads media"):
        Trainer(model=toy_model(), objective=DPO(), data=toy_pairs(), config=settings, quiet=True)
    with pytest.raises(ConfigError, match="makes media while it trains"):
        Trainer(
            model=tiny(folder),
            objective=DRaFT(reward="operator:add"),
            data=read("oracle", split="image/prompts", limit=2),
            config=settings,
            quiet=True,
        )
