"""Pictures go to the size that is nearest in shape, pairs to that of the chosen; what conditions a network follows."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from modalign import load
from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Message, Part, Response
from modalign.decoders.denoiser import Denoiser
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_image.generators.shapes import aspect_sizes
from modalign_image.generators.testing import stable_diffusion_3
from modalign_image.generators.testing_unet import stable_diffusion, stable_diffusion_xl

SIZES = [[16, 16], [20, 12], [12, 20]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion_3(tmp_path_factory.mktemp("sd3"))


def picture(height: int, width: int, seed: int = 0) -> Response:
    made = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    return Response(messages=(Message(role="assistant", parts=(Part(modality="image", value=made),)),))


def pair(chosen: tuple[int, int], rejected: tuple[int, int]) -> Comparison:
    asked = [Message(role="user", parts=(Part(modality="text", value="a red square"),))]
    return Comparison.pair(asked, picture(*chosen), picture(*rejected, seed=1))


def denoiser(model: Model) -> Denoiser:
    return cast(Denoiser, model.decoders["image"].denoiser)


def shapes(model: Model, row: Comparison) -> list[tuple[int, ...]]:
    found = [one.media for one in model.assembly.preparer.encode(row)]
    return [tuple(one.tensors["fitted"].shape[-2:]) for media in found for one in media.values() if one.tensors]


def test_a_pair_goes_to_the_size_nearest_to_its_chosen(folder: Path) -> None:
    model = load(str(folder), options={"aspect_buckets": SIZES, "aspect_tolerance": 0.5})
    assert shapes(model, pair((40, 40), (40, 40))) == [(16, 16)] * 2
    assert shapes(model, pair((50, 30), (50, 30))) == [(20, 12)] * 2
    assert shapes(model, pair((30, 50), (30, 50))) == [(12, 20)] * 2
    assert shapes(model, pair((50, 30), (48, 36))) == [(20, 12)] * 2  # the rejected alone were nearer to the square
    with pytest.raises(DataError, match="differ in shape"):
        model.assembly.preparer.encode(pair((50, 30), (30, 50)))


def test_samples_of_several_sizes_train_together_as_each_alone(folder: Path, tmp_path: Path) -> None:
    rows = [pair((40, 40), (40, 40)), pair((50, 30), (50, 30)), pair((30, 50), (30, 50))]
    losses: list[float] = []
    for options in ({"aspect_buckets": SIZES}, {"aspect_buckets": True, "height": 16, "width": 16}):
        model = load(str(folder), adapter=AdapterConfig(r=2), options=options)
        result = Trainer(
            model=model,
            objective=DPO(),
            data=rows,
            output_dir=tmp_path / str(len(losses)),
            max_steps=2,
            per_device_train_batch_size=3,
            quiet=True,
            learning_rate=1e-2,
        ).train()
        losses.append(result.metrics["loss"])
    assert losses[0] == losses[1]  # those that are made are the same three here
    assert losses[0] != pytest.approx(0.6931471805599453, abs=1e-9)


def test_a_network_that_is_told_the_size_is_told_that_of_the_bucket(tmp_path: Path) -> None:
    model = load(str(stable_diffusion_xl(tmp_path)), options={"aspect_buckets": SIZES})
    told: list[object] = []

    def listen(_network: object, _arguments: object, named: dict[str, dict[str, torch.Tensor]]) -> None:
        told.append(named["added_cond_kwargs"]["time_ids"].tolist())

    handle = denoiser(model).network.register_forward_pre_hook(listen, with_kwargs=True)
    rows = [pair((40, 40), (40, 40)), pair((50, 30), (50, 30))]
    samples = [encode(row, model.assembly.preparer, DPO.needs) for row in rows]
    with torch.no_grad():
        model(assemble(samples, share=model.shares), Draws(seed=1, prompt_dropout=0.5))
    handle.remove()
    assert told == [[[16, 16, 0, 0, 16, 16]] * 2, [[20, 12, 0, 0, 20, 12]] * 2]


def test_sizes_are_of_one_area_and_of_whole_patches() -> None:
    found = aspect_sizes(1024, 1024, 64)
    assert (1024, 1024) in found
    assert all(high % 64 == wide % 64 == 0 for high, wide in found)
    assert all(0.8 <= high * wide / 1024**2 <= 1.25 and 0.5 <= high / wide <= 2 for high, wide in found)
    assert {(wide, high) for high, wide in found} == set(found)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [([[16, 15]], "16 by 15 pixels; to mend: multiples of"), ([[16, 16], [32, 32]], "buckets are of one area")],
)
def test_sizes_that_cannot_be_are_said(sizes: list[list[int]], says: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load(str(folder), options={"aspect_buckets": sizes})


def test_tiles_are_the_autoencoders_own_and_known_to_what_is_kept(tmp_path: Path) -> None:
    whole, tiled = (
        denoiser(load(str(stable_diffusion(tmp_path / name)), options=options))
        for name, options in (("one", {}), ("two", {"vae_tiling": True}))
    )
    parts = [one for one in tiled.readers["latents"].modules() if getattr(one, "use_tiling", False)]
    assert len(parts) == 1
    assert not [one for one in whole.readers["latents"].modules() if getattr(one, "use_tiling", False)]
    assert dict(whole.facts) != dict(tiled.facts)


def test_an_autoencoder_without_tiles_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_self: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(AutoencoderKL, "enable_tiling", none)
    with pytest.raises(ConfigError, match="takes nothing tile by tile"):
        load(str(stable_diffusion(tmp_path)), options={"vae_tiling": True})
