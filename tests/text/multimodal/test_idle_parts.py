"""Behind a language model the text encoders of a pipeline leave memory: nothing is different but that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

import modalign
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Part, Response
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.errors import ModelError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_image.generators.testing import stable_diffusion_3
from modalign_text.testing import tiny_model

TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("words"))


def composed(words: Path, pipeline: Path, **decoder: object) -> Model:
    options = {"height": 16, "width": 16}
    connector = {"queries": 4, "heads": 4}
    one = {"path": str(pipeline), "options": options, "connector": connector, **decoder}
    return modalign.load(words, decoders={"image": one}).eval()


def denoiser(model: Model) -> PipelineDenoiser:
    return cast(PipelineDenoiser, cast(DenoisingDecoder, model.decoders["image"]).denoiser)


def held(model: Model) -> dict[str, int]:
    """Numbers of parameters by part of the pipeline."""
    parts = denoiser(model).family.pipe.components.items()
    return {name: sum(one.numel() for one in part.parameters()) for name, part in parts if isinstance(part, nn.Module)}


@torch.no_grad()
def painted(model: Model, guidance: float = 3.0) -> torch.Tensor:
    decoder = cast(DenoisingDecoder, model.decoders["image"])
    assert decoder.conditioner is not None
    given = decoder.conditioner(
        torch.randn(1, 4, decoder.conditioner.width, generator=torch.Generator().manual_seed(1))
    )
    config = GenerationConfig(num_inference_steps=2, guidance_scale=guidance)
    (part,) = decoder.denoiser.paint(given, decoder.conditioner.nothing(), [torch.Generator().manual_seed(2)], config)
    return cast(torch.Tensor, part.value)


def pairs() -> list[Comparison]:
    def said(level: float) -> Response:
        picture = Part(modality="image", value=torch.full((3, 16, 16), level))
        return Response(messages=(Message(role="assistant", parts=(picture,)),))

    prompt = (Message(role="user", parts=(Part(modality="text", value="light"),)),)
    return [Comparison.pair(prompt, said(0.9), said(0.1))]


def test_what_is_written_is_the_same_without_them(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    found = composed(words, place)
    sizes = held(found)
    assert {sizes[name] for name in TEXTS} == {0}
    assert sizes["vae"] > 0 < sizes["transformer"]
    assert not denoiser(found).away  # nothing that a run needs
    monkeypatch.setattr(PipelineDenoiser, "hears_states", lambda self: None)
    plain = composed(words, place)
    assert min(held(plain).values()) > 0
    for guidance in (0.0, 3.0):
        assert torch.equal(painted(found, guidance), painted(plain, guidance))
    assert held(found) == sizes


def test_the_whole_pipeline_is_saved_and_they_leave_again(words: Path, tmp_path: Path) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    model = composed(words, place)
    sizes = held(model)
    model.save(tmp_path / "saved")
    assert held(model) == sizes
    there, found = (DiffusionPipeline.from_pretrained(one) for one in (place, tmp_path / "saved/decoders/image"))
    for name in TEXTS:
        one, other = (getattr(pipe, name).state_dict() for pipe in (there, found))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    again = modalign.load(tmp_path / "saved").eval()
    assert held(again) == sizes
    assert torch.equal(painted(again), painted(model))


def test_where_they_came_from_must_be_there_when_they_are_saved(words: Path, tmp_path: Path) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    whole, adapted = composed(words, place), composed(words, place, adapter={"r": 2})
    shutil.rmtree(place / "text_encoder_3")
    with pytest.raises(ModelError, match="the text_encoder_3 of this pipeline had left memory, and cannot be loaded"):
        whole.save(tmp_path / "whole")
    adapted.save(tmp_path / "adapted")  # the pipeline stays where it is


def test_a_run_that_precomputes_leaves_them_where_they_are(words: Path, tmp_path: Path) -> None:
    model = composed(words, stable_diffusion_3(tmp_path / "sd3"), adapter={"r": 2})
    settings = {"feature_cache": tmp_path / "kept", "precompute_features": True}
    trainer = Trainer(
        model=model, objective=DPO(), data=pairs(), output_dir=tmp_path / "run", max_steps=2, quiet=True, **settings
    )
    trainer.train()
    assert denoiser(model).away
    assert held(model)["vae"] == 0
    painted(model)
    sizes = held(model)
    assert sizes["vae"] > 0
    assert {sizes[name] for name in TEXTS} == {0}
