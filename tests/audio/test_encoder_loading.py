"""What a folder must hold to be an audio tower, and what can be asked of one: each error says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import logging

from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign_audio.encoder import AudioEncoder
from modalign_audio.testing import tiny_audio


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {family: tiny_audio(root / family, family) for family in ("whisper", "clap", "wav2vec2")}


def load(folder: Path, **options: object) -> AudioEncoder:
    return AudioEncoder.load(str(folder), **options)  # pyright: ignore[reportArgumentType]


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def drop(file: Path, start: str) -> None:
    save_file(
        {name: value for name, value in load_file(file).items() if not name.startswith(start)}, file, {"format": "pt"}
    )


def test_a_folder_that_is_no_audio_tower_says_what_is_wrong(folders: dict[str, Path], tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(folders["whisper"], tmp_path / name))

    (tmp_path / "empty").mkdir()
    (damaged("no extractor") / "preprocessor_config.json").unlink()
    (damaged("no weights") / "model.safetensors").unlink()
    (damaged("pickle") / "model.safetensors").rename(tmp_path / "pickle" / "pytorch_model.bin")
    (damaged("renamed") / "model.safetensors").write_bytes(b"\x80\x04pickle" * 100)
    change(damaged("text model") / "config.json", model_type="llama")
    change(damaged("other mels") / "preprocessor_config.json", feature_size=20)
    change(damaged("other window") / "preprocessor_config.json", chunk_length=3)
    shutil.copy(folders["clap"] / "preprocessor_config.json", damaged("other extractor"))
    drop(damaged("missing") / "model.safetensors", "model.encoder.layers.1")
    shutil.copytree(folders["wav2vec2"], tmp_path / "adapter")
    change(tmp_path / "adapter" / "config.json", add_adapter=True)
    for name, error, says in (
        ("empty", ModelError, "configuration"),
        ("no extractor", ModelError, "feature extractor"),
        ("no weights", ModelError, "tower"),
        ("pickle", ModelError, "tower"),
        ("renamed", CheckpointError, "no safetensors"),
        ("text model", ModelError, "no audio tower that is known; found: model_type 'llama'.*whisper, clap"),
        ("other mels", ModelError, "number of mels differs; found: 16 in config.json, 20 in"),
        ("other window", ModelError, "window in frames differs; found: 200 in config.json, 300 in"),
        ("other extractor", ModelError, "of another kind; found: ClapFeatureExtractor"),
        ("missing", ModelError, "lacks weights of its own architecture.*layers.1"),
        ("adapter", ModelError, "adapter"),
    ):
        with pytest.raises(error, match=says):
            AudioEncoder.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("family", "options", "says"),
    [
        ("whisper", {"pool": 0}, "pool"),
        ("whisper", {"pols": 2}, "pols.*its options are pool, layer, features"),
        ("whisper", {"layer": 3}, "no such layer.*0 to 2"),
        ("whisper", {"layer": -4}, "no such layer"),
        ("clap", {"layer": 1}, "widths of their own"),
        ("whisper", {"features": "numpy"}, "features"),
    ],
)
def test_a_wrong_option_is_named(folders: dict[str, Path], family: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(folders[family], **options)


def test_loading_leaves_the_librarys_log_level_as_it_was(folders: dict[str, Path]) -> None:
    before = logging.get_verbosity()
    load(folders["clap"])
    assert logging.get_verbosity() == before
