"""Vision towers as encoders: transformers' own numbers, one embedding per patch, saved and loaded bit for bit.

m embeddings, d width, h w pixels.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from modalign.batch import Medium
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.registry import registry
from modalign.roles import Content
from modalign_image.encoder import OPTIONS, VisionEncoder
from modalign_image.testing import FAMILIES, WIDTH, tiny_vision
from modalign_text.testing import tiny_model

SIZES = ((40, 60), (33, 90), (50, 20), (40, 60))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {family: tiny_vision(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def content(height: int, width: int, seed: int = 0) -> Content:
    made = torch.Generator().manual_seed(seed)
    return Content(modality="image", tensor=torch.randint(256, (3, height, width), dtype=torch.uint8, generator=made))


def contents() -> list[Content]:
    return [content(*size, seed=seed) for seed, size in enumerate(SIZES)]


def prepared(encoder: VisionEncoder) -> list[Medium]:
    return [encoder.prepare(one) for one in contents()]


every = pytest.mark.parametrize("family", FAMILIES)


@every
def test_cost_is_the_number_of_embeddings(family: str, folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders[family]))
    media = prepared(encoder)
    found = encoder(media)
    assert [tuple(one.shape) for one in found] == [(medium.cost, encoder.width) for medium in media]
    assert encoder.width == WIDTH
    if family != "siglip2":
        assert {medium.cost for medium in media} == {16}  # 32 pixels in patches of 8: 4 by 4
        assert media[0].tensors["pixel_values"].shape == (3, 32, 32)
    else:
        assert len({medium.cost for medium in media}) > 1  # it keeps the shape of each picture
        assert all(medium.cost <= 16 for medium in media)


@every
@pytest.mark.parametrize("layer", [0, 1, -2, -1])
def test_states_are_those_of_transformers(family: str, layer: int, folders: Mapping[str, Path]) -> None:
    whole = AutoModel.from_pretrained(folders[family], local_files_only=True)
    tower = getattr(whole, "vision_model", whole)
    processor = AutoImageProcessor.from_pretrained(folders[family], local_files_only=True)
    encoder = VisionEncoder.load(str(folders[family]), layer=layer, select="all")
    for one, found in zip(contents(), encoder(prepared(encoder)), strict=True):
        inputs = processor(images=one.tensor, return_tensors="pt", input_data_format="channels_first")
        states = tower(**inputs, output_hidden_states=True).hidden_states[layer][0]
        torch.testing.assert_close(found, states[: found.shape[0]], atol=1e-5, rtol=1e-5)


@every
def test_order_and_company_in_the_batch_do_not_matter(family: str, folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders[family]))
    media = prepared(encoder)
    wanted = encoder(media)
    for order in ([3, 1, 0, 2], [2], [1, 1, 1]):
        for index, found in zip(order, encoder([media[index] for index in order]), strict=True):
            torch.testing.assert_close(found, wanted[index], atol=1e-5, rtol=1e-5)
    assert encoder([]) == []
    assert not torch.allclose(wanted[0], wanted[3])  # equal size, another picture


@every
def test_what_is_saved_loads_bit_for_bit(family: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    encoder = VisionEncoder.load(str(folders[family]), layer=1, select="all")
    folder = tmp_path / "saved" / "encoder"
    encoder.save(folder)
    again = VisionEncoder.load(str(folder))
    assert again.options == encoder.options
    for one, other in zip(prepared(encoder), prepared(again), strict=True):
        assert all(one.tensors[name].equal(other.tensors[name]) for name in one.tensors)
    for one, other in zip(encoder(prepared(encoder)), again(prepared(again)), strict=True):
        assert one.equal(other)
    assert VisionEncoder.load(str(folder), select="patch").options.select == "patch"  # what is asked for wins
    assert not [file for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl")]


@every
def test_of_two_towers_only_the_vision_one_is_kept(family: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    encoder = VisionEncoder.load(str(folders[family]))
    assert not [name for name in encoder.state_dict() if "text" in name or "logit" in name or "_shapes" in name]
    encoder.save(tmp_path)
    assert "vision_config" not in json.loads((tmp_path / "config.json").read_text())
    assert all(parameter.device.type == "cpu" for parameter in encoder.parameters())


@every
def test_making_and_loading_leave_the_random_state_alone(family: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    tiny_vision(tmp_path, family, seed=7)
    VisionEncoder.load(str(tmp_path))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("family", "before"), [("clip", 1), ("dinov2", 1)])
def test_patches_and_class_token_are_parts_of_all(family: str, before: int, folders: Mapping[str, Path]) -> None:
    found = {select: VisionEncoder.load(str(folders[family]), select=select) for select in ("all", "cls", "patch")}
    states = {select: encoder(prepared(encoder))[0] for select, encoder in found.items()}
    assert states["cls"].equal(states["all"][:before])
    assert states["patch"].equal(states["all"][before:])
    assert [encoder.prepare(content(9, 9)).cost for encoder in found.values()] == [17, 1, 16]


def test_register_tokens_are_no_patches(tmp_path: Path) -> None:
    sizes = dict(FAMILIES["dinov2"])
    config = AutoConfig.for_model("dinov2_with_registers", **sizes, num_register_tokens=4)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    shutil.copy(tiny_vision(tmp_path / "plain", "dinov2") / "preprocessor_config.json", tmp_path)
    encoder = VisionEncoder.load(str(tmp_path), layer=0)
    tower = encoder.tower(
        pixel_values=encoder.prepare(content(9, 9)).tensors["pixel_values"][None], output_hidden_states=True
    )
    assert encoder(prepared(encoder))[0].shape == (16, WIDTH)
    assert encoder([encoder.prepare(content(9, 9))])[0].equal(
        tower.hidden_states[0][0, 5:]
    )  # 1 class token, 4 registers


@pytest.mark.parametrize(
    ("family", "settings", "patches", "width"),
    [
        ("vit", {**cast("dict[str, object]", FAMILIES["clip"]["vision_config"])}, 16, WIDTH),
        ("convnext", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, 4, 24),
        ("swin", {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "window_size": 2}, 16, 16),
    ],
)
def test_other_towers_of_transformers_work_too(
    family: str, settings: dict[str, object], patches: int, width: int, tmp_path: Path
) -> None:
    AutoModel.from_config(AutoConfig.for_model(family, **settings)).save_pretrained(tmp_path)
    shutil.copy(tiny_vision(tmp_path / "plain", "siglip") / "preprocessor_config.json", tmp_path)
    encoder = VisionEncoder.load(str(tmp_path))
    assert encoder.width == width
    assert {tuple(one.shape) for one in encoder(prepared(encoder))} == {(patches, width)}


@every
def test_gradients_reach_the_tower_and_frozen_says_whether_they_may(family: str, folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders[family]))
    assert not encoder.frozen
    weights = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    cast(Tensor, sum((one * weights).sum() for one in encoder(prepared(encoder)))).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    encoder.requires_grad_(False)
    assert encoder.frozen


@every
def test_weights_may_be_of_another_type(family: str, folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders[family]), dtype=torch.bfloat16)
    wanted = VisionEncoder.load(str(folders[family]))
    for found, exact in zip(encoder(prepared(encoder)), wanted(prepared(wanted)), strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).norm() < 0.05 * exact.norm()  # bf16 keeps 8 bits through two layers


def test_two_towers_load_without_a_table_of_what_was_left_out(
    folders: Mapping[str, Path], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        VisionEncoder.load(str(folders["clip"]))
    assert "LOAD REPORT" not in caplog.text
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_the_registry_knows_the_encoder() -> None:
    assert registry.encoder("vision") is VisionEncoder
    assert registry.entries("encoders")["vision"].declarations["modality"] == "image"


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layer": 9}, r"^layer: the tower has no such layer; found: 9; to mend: give one from -4 to 3"),
        ({"layer": -5}, r"^layer: .*found: -5"),
        ({"layer": "last"}, "^layer: "),
        ({"select": "mean"}, "^select: "),
        ({"laier": 1}, "^laier: .*options of the vision encoder: layer, select"),
    ],
)
@every
def test_a_wrong_option_is_named_when_it_is_loaded(
    family: str, options: dict[str, object], says: str, folders: Mapping[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=says):
        VisionEncoder.load(str(folders[family]), **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_a_tower_without_a_class_token_says_so_when_it_is_loaded(family: str, folders: Mapping[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"^select: the tower has no class token.*select patch or all"):
        VisionEncoder.load(str(folders[family]), select="cls")


def test_folders_without_a_vision_tower_are_refused(tmp_path: Path) -> None:
    words = tiny_model(tmp_path / "words")
    (tmp_path / "empty").mkdir()
    for path, says in (
        (words, "no vision tower in .*a model of type llama"),
        (tmp_path / "empty", "the config of .*cannot be loaded"),
        (tmp_path / "missing", "no vision tower in .*no such folder"),
    ):
        with pytest.raises(ModelError, match=says):
            VisionEncoder.load(str(path))


def test_an_id_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the config of 'nobody/nothing' cannot be loaded"):
        VisionEncoder.load("nobody/nothing")


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_a_checkpoint_without_some_weights_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(folders["clip"], tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "vision_model.encoder.layers.1" in name)
    save_file({name: one for name, one in weights.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks weights of its vision tower; found: 1 missing"):
        VisionEncoder.load(str(folder))


def test_weights_that_are_no_safetensors_are_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["siglip"], tmp_path / "siglip")
    (folder / "model.safetensors").write_bytes(b"\x80\x02}q\x00." * 9)
    with pytest.raises((CheckpointError, ModelError), match=r"no safetensors file|cannot be loaded"):
        VisionEncoder.load(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        VisionEncoder.load(str(folder))


def test_a_folder_without_a_processor_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["dinov2"], tmp_path / "dinov2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded.*preprocessor_config\.json"):
        VisionEncoder.load(str(folder))


def test_code_that_a_folder_brings_is_not_run(folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["dinov2"], tmp_path / "dinov2")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        VisionEncoder.load(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("saved", ["[1]", "{", '{"layer": "x"}', '{"other": 1}'])
def test_saved_options_that_are_broken_are_refused(saved: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["siglip"], tmp_path / "siglip")
    (folder / OPTIONS).write_text(saved)
    with pytest.raises((ModelError, ConfigError), match=r"options|layer|other"):
        VisionEncoder.load(str(folder))


def test_another_modality_is_refused(folders: Mapping[str, Path]) -> None:
    encoder = VisionEncoder.load(str(folders["clip"]))
    with pytest.raises(ModelError, match="takes pictures; found: audio"):
        encoder.prepare(Content(modality="audio", tensor=torch.zeros(3, 9, 9)))
