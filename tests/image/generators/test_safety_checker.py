"""Stable Diffusion's safety checker: it looks at what is written, stands aside for gradients, and is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from modalign import load
from modalign.config import GenerationConfig
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.model import Model
from modalign_image.generators.testing_unet import stable_diffusion

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    place = stable_diffusion(tmp_path / "bare")
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    pipe = DiffusionPipeline.from_pretrained(place)
    pipe.register_modules(
        safety_checker=StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=SIZES)).eval(),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    pipe.save_pretrained(tmp_path / "checked")
    return load(str(tmp_path / "checked"), options={"height": 16, "width": 16})


def made(model: Model) -> torch.Tensor:
    family = cast(PipelineDenoiser, cast(DenoisingDecoder, model.decoders["image"]).denoiser).family
    (found,) = family.make(["red"], [torch.Generator().manual_seed(0)], GenerationConfig(num_inference_steps=2))
    return found


def test_it_is_saved_after_gradients_too(model: Model, tmp_path: Path) -> None:
    assert made(model).any()
    model.save(tmp_path / "saved")
    said = json.loads((tmp_path / "saved/model_index.json").read_text())
    assert said["safety_checker"] == ["stable_diffusion", "StableDiffusionSafetyChecker"]
    assert (tmp_path / "saved/safety_checker").is_dir()


def test_it_looks_at_what_is_written_and_not_at_what_has_gradients(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def black(_: object, clip_input: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        seen.append(len(clip_input))
        return images * 0, [True] * len(images)

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", black)
    with torch.no_grad():
        assert not made(model).any()
    assert made(model).any()
    assert seen == [1]
