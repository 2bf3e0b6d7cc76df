"""Latents and text conditions are made once: by step for policy and reference, and at all where a folder keeps them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from modalign import load
from modalign.config import AdapterConfig
from modalign.data import read
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_image.generators.testing import stable_diffusion_3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion_3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many media and prompts were encoded."""
    from modalign.integrations.diffusers.denoiser import PipelineDenoiser

    found: Counter[str] = Counter()
    for name in ("latents", "conditions"):
        own = getattr(PipelineDenoiser, name)

        def counted(self: object, media: list[object], own=own, name: str = name) -> object:
            found[name] += len(media)
            return own(self, media)

        monkeypatch.setattr(PipelineDenoiser, name, counted)
    return found


def train(model: Model, run: Path, cache: Path | None = None) -> dict[str, torch.Tensor]:
    Trainer(
        model=model,
        objective=DPO(beta=0.05),
        data=read("oracle", split="image/shared-defect", limit=3),
        output_dir=run,
        max_steps=2,
        per_device_train_batch_size=3,
        learning_rate=1e-3,
        quiet=True,
        feature_cache=cache,
    ).train()
    return {name: value.detach().clone() for name, value in model.trainable().items()}


def tiny(folder: Path, size: int = 16) -> Model:
    return load(str(folder), adapter=AdapterConfig(r=2), options={"height": size, "width": size})


def test_each_is_made_once_a_step_for_policy_and_reference(folder: Path, tmp_path: Path, made: Counter[str]) -> None:
    train(tiny(folder), tmp_path / "run")
    # two steps of three pairs: six media, and one prompt for each pair
    assert made["latents"] == 2 * 6
    assert made["conditions"] == 2 * 3


def test_what_is_kept_on_disk_is_not_made_again_and_trains_alike(
    folder: Path, tmp_path: Path, made: Counter[str]
) -> None:
    plain = train(tiny(folder), tmp_path / "plain")
    made.clear()
    first = train(tiny(folder), tmp_path / "first", cache=tmp_path / "kept")
    assert made["latents"] == 6
    made.clear()
    second = train(tiny(folder), tmp_path / "second", cache=tmp_path / "kept")
    assert not made
    for name, value in plain.items():
        assert torch.equal(value, first[name])
        assert torch.equal(value, second[name])
    train(tiny(folder, 32), tmp_path / "larger", cache=tmp_path / "kept")
    assert made["latents"] == 6  # of another size they are other latents
