"""What cannot be trained on is refused in words: models, settings, rows and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch

from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.loading import load
from modalign.model import Model
from modalign.objectives import DPO
from modalign.world.source import words_modality
from modalign_image.generators.loader import ImagePipelineLoader
from modalign_image.generators.testing import flux
from modalign_image.generators.testing_unet import stable_diffusion

WORDS = Part(modality=words_modality(), value="a red square")
PICTURE = Part(modality="image", value=torch.full((3, 16, 16), 0.5))
OTHER = Part(modality="image", value=torch.full((3, 16, 16), 0.25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("sd"))


def tiny(folder: Path) -> Model:
    return load(str(folder), options={"height": 16, "width": 16})


def pair(prompt: Part, chosen: Part, rejected: Part) -> Comparison:
    answers = [Response(messages=(Message(role="assistant", parts=(one,)),)) for one in (chosen, rejected)]
    return Comparison.pair([Message(role="user", parts=(prompt,))], *answers)


# --- models ---------------------------------------------------------------------------------------


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no loader knows the model .*an empty folder"):
        load(str(tmp_path))


def test_an_unknown_pipeline_is_refused_with_the_ones_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SomeOtherPipeline"}))
    with pytest.raises(ModelError, match="a pipeline SomeOtherPipeline; of image: ") as caught:
        load(str(tmp_path))
    assert all(name in str(caught.value) for name in ImagePipelineLoader.families)


def test_a_pipeline_that_misses_weights_is_refused(tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded; .*no file named.*the folder is complete"):
        load(str(folder))


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hight": 16}, r"^model\.options: hight: .*found: 16; to mend: settings: height, width, aspect_buckets"),
        ({"height": -16}, r"^model\.options: height: .*greater than 0"),
        ({"height": 15}, r"^model\.options\.height: .*found: 15 pixels; to mend: a multiple of 2"),
        ({"guidance": 2.0}, r"^model\.options: guidance: .*settings: height"),
        ({"max_sequence_length": 64}, r"^model\.options: max_sequence_length: .*settings: height"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load(str(folder), options=options)


def test_a_network_of_patches_needs_whole_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.options\.width: .*found: 18 pixels; to mend: a multiple of 4"):
        load(str(flux(tmp_path)), options={"height": 16, "width": 18})


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        (pair(PICTURE, PICTURE, OTHER), "prompt", "reads words, and no media; found: a part of image"),
        (pair(WORDS, WORDS, OTHER), "chosen", f"media of image and nothing else; found: a part of {WORDS.modality}"),
        (
            pair(WORDS, PICTURE, WORDS),
            "rejected",
            f"media of image and nothing else; found: a part of {WORDS.modality}",
        ),
    ],
)
def test_a_row_that_cannot_be_scored_is_named_by_field(row: Comparison, field: str, says: str, folder: Path) -> None:
    with pytest.raises(DataError, match=says) as caught:
        tiny(folder).assembly.preparer.encode(row)
    assert caught.value.field == field


# --- weights --------------------------------------------------------------------------------------


def test_latents_that_are_no_numbers_are_refused(folder: Path) -> None:
    model = tiny(folder)
    denoiser = cast(PipelineDenoiser, cast(DenoisingDecoder, model.decoders["image"]).denoiser)
    with torch.no_grad():
        for value in denoiser.family.part("vae").parameters():
            value.fill_(torch.nan)
    batch = assemble([encode(pair(WORDS, PICTURE, OTHER), model.assembly.preparer, DPO().needs)], share=model.shares)
    # 4 channels of 8 by 8 are 256 values
    with pytest.raises(DataError, match=r"not finite; found: 256 of 256 values.*float32.*or remove the row"):
        model(batch, Draws())


# --- settings that are kept ------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [True, False])
def test_a_saved_model_goes_on_with_its_options(adapter: bool, folder: Path, tmp_path: Path) -> None:
    settings = {"adapter": {"r": 2}} if adapter else {}
    load(str(folder), options={"height": 24, "width": 16}, **settings).save(tmp_path)
    (decoder,) = load(str(tmp_path)).decoders.values()
    again = cast(PipelineDenoiser, cast(DenoisingDecoder, decoder).denoiser).family
    assert (again.settings.height, again.settings.width) == (24, 16)  # pyright: ignore[reportAttributeAccessIssue]
    (decoder,) = load(str(tmp_path), options={"height": 32}).decoders.values()
    other = cast(PipelineDenoiser, cast(DenoisingDecoder, decoder).denoiser).family
    assert (other.settings.height, other.settings.width) == (32, 16)  # pyright: ignore[reportAttributeAccessIssue]


def test_settings_that_would_do_nothing_are_refused(folder: Path) -> None:
    for name, value in (("freeze", ("backbone",)), ("sharing", "off"), ("attn_implementation", "eager")):
        with pytest.raises(ConfigError, match=f"model.{name}.*no such setting"):
            load(str(folder), **{name: value})
