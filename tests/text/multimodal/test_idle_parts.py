"""Behind a language model the text encoders of a pipeline are no part of it that moves: nothing else is different."""

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
from modalign.decoders.backprop import Route
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


def decoder(pipeline: Path, **settings: object) -> dict[str, object]:
    options, connector = {"height": 16, "width": 16}, {"queries": 4, "heads": 4}
    return {"path": str(pipeline), "options": options, "connector": connector, **settings}


def composed(words: Path, pipeline: Path, **settings: object) -> Model:
    return modalign.load(words, decoders={"image": decoder(pipeline, **settings)}).eval()


def denoiser(model: Model) -> PipelineDenoiser:
    return cast(PipelineDenoiser, cast(DenoisingDecoder, model.decoders["image"]).denoiser)


def held(model: Model) -> dict[str, int]:
    """Numbers of parameters by part of the pipeline."""
    parts = denoiser(model).family.pipe.components.items()
    return {name: sum(one.numel() for one in part.parameters()) for name, part in parts if isinstance(part, nn.Module)}


@torch.no_grad()
def painted(model: Model, guidance: float = 3.0) -> torch.Tensor:
    conditioner = cast(DenoisingDecoder, model.decoders["image"]).conditioner
    assert conditioner is not None
    given = conditioner(torch.randn(1, 4, conditioner.width, generator=torch.Generator().manual_seed(1)))
    config = GenerationConfig(num_inference_steps=2, guidance_scale=guidance)
    (part,) = denoiser(model).paint(given, conditioner.nothing(), [torch.Generator().manual_seed(2)], config)
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


def test_where_they_came_from_is_not_asked_again(words: Path, tmp_path: Path) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    model = composed(words, place)
    shutil.rmtree(place)
    model.save(tmp_path / "saved")
    assert torch.equal(painted(modalign.load(tmp_path / "saved").eval()), painted(model))


def test_a_run_may_write_where_its_model_came_from(words: Path, tmp_path: Path) -> None:
    def run(model: Model) -> None:
        settings = {"output_dir": tmp_path / "run", "overwrite_output_dir": True}
        Trainer(model=model, objective=DPO(), data=pairs(), max_steps=1, quiet=True, **settings).train()

    run(composed(words, stable_diffusion_3(tmp_path / "sd3")))
    run(modalign.load(tmp_path / "run/final"))
    assert set(TEXTS) <= {one.name for one in (tmp_path / "run/final/decoders/image").iterdir()}


def test_they_have_no_weights_again_where_saving_fails(words: Path, tmp_path: Path) -> None:
    model = composed(words, stable_diffusion_3(tmp_path / "sd3"))
    sizes = held(model)

    def fail(*_: object, **__: object) -> None:
        assert min(held(model).values()) > 0
        raise OSError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(denoiser(model).family.pipe), "save_pretrained", fail)
        with pytest.raises(OSError):  # noqa: PT011 - our own
            model.save(tmp_path / "saved")
    assert held(model) == sizes


def test_a_prompt_in_words_is_refused_in_words(words: Path, tmp_path: Path) -> None:
    model = denoiser(composed(words, stable_diffusion_3(tmp_path / "sd3")))
    with pytest.raises(ModelError, match="stands behind a language model, whose states say what it makes"):
        model.conditions([model.nothing()])
    with pytest.raises(ModelError, match="stands behind a language model"):
        model.sample([model.nothing()], [torch.Generator()], Route(steps=2))


def test_a_run_that_precomputes_leaves_them_where_they_are(words: Path, tmp_path: Path) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    model = composed(words, place, train=False)
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


def test_a_run_that_precomputes_tries_first_what_it_will_save(words: Path, tmp_path: Path) -> None:
    place = stable_diffusion_3(tmp_path / "sd3")
    model = modalign.load(words, decoders={"image": decoder(place)}, adapter={"r": 2})
    shutil.rmtree(place / "vae")
    settings = {"feature_cache": tmp_path / "kept", "precompute_features": True, "output_dir": tmp_path / "run"}
    with pytest.raises(ModelError, match="the vae of this pipeline had left memory, and cannot be loaded again"):
        Trainer(model=model, objective=DPO(), data=pairs(), max_steps=2, quiet=True, **settings).train()
    assert not [line for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines() if '"loss"' in line]
