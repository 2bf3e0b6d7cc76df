"""Parts that cannot be put together: one clear error each, in Python, YAML and flags, before any weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import transformers

import modalign
from modalign.cli.app import app
from modalign.config import DecoderConfig, EncoderConfig
from modalign.errors import ConfigError, DataError, ModalignError, ModelError, PluginError
from modalign.hookspecs import hookimpl
from modalign.integrations import painter
from modalign.model import Model
from modalign.registration import discovery
from modalign.registry import registry
from modalign.testing.doubles import ToyAssembly, ToyBackbone, ToyEncoder
from modalign_image.testing import tiny_vision

COMPOSITION = "modalign_composition.json"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts, none of whose weights can be read: what fails because of them has come too late."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("text", "image", "audio"):
        registry.depiction(name).student(folder / name)
    tiny_vision(folder / "tower", "clip")
    model = modalign.compose(
        folder / "text",
        encoders={"image": folder / "tower"},
        decoders={"image": folder / "image", "audio": folder / "audio"},
        connectors={"encoders.image": "linear", "decoders.image": {"heads": 4}, "audio": {"heads": 4}},
    )
    model.save(folder / "whole")
    shutil.copytree(folder / "whole", folder / "sound")
    for file in folder.rglob("*.safetensors"):
        if folder / "sound" not in file.parents:
            file.write_bytes(b"poison")
    row = {"prompt": "Show me rain", "chosen": "Here.", "rejected": "No."}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "opened.jsonl").write_text(json.dumps({**row, "chosen": "Here: <|image|>"}) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Nothing is read of any weights: what would read them is counted."""
    read: list[str] = []

    def refuse(*given: object, **_: object) -> None:
        read.append(str(given[-1]))
        pytest.fail(f"weights are read: {given[-1]}")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr(painter, "load_file", refuse)
    monkeypatch.setattr(safetensors.torch, "load_file", refuse)
    yield read
    assert read == []


#: by what is wrong: the parts, with folders by name, and what is said
WRONG: Mapping[str, tuple[Mapping[str, object], str]] = {
    "widths without a connector": (
        {"encoders": {"image": {"path": "tower", "connector": None}}},
        r"^model\.encoders\.image\.connector: these parts do not fit without a connector; found: embeddings of width 32"
        r" for states of width 64; to mend: name a connector: linear, mlp, query$",
    ),
    "no such connector": (
        {"encoders": {"image": {"path": "tower", "connector": {"type": "mpl"}}}},
        r"^model\.encoders\.image\.connector\.type: no connector 'mpl'; .*did you mean 'mlp'\?",
    ),
    "options of a connector": (
        {"encoders": {"image": {"path": "tower", "connector": {"type": "query", "options": {"heads": 5}}}}},
        r"^model\.encoders\.image\.connector\.options\.heads: heads must divide",
    ),
    "options of a tower": (
        {"encoders": {"image": {"path": "tower", "options": {"pool": 2}}}},
        r"pool: Extra inputs are not permitted; .*to mend: options of the vision encoder: layer",
    ),
    "an encoder of nobody's modality": (
        {"encoders": {"smell": {"path": "tower"}}},
        r"^model\.encoders\.smell: no modality 'smell'; found: registered: audio, image, text, video; to mend: correct "
        r"the name, or install its plugin: pip install modalign-smell",
    ),
    "a decoder of nobody's modality": (
        {"decoders": {"smell": {"path": "image"}}},
        r"^model\.decoders\.smell: no modality 'smell'; found: registered: .*; to mend: .*pip install modalign-smell",
    ),
    "a modality spelt nearly right": (
        {"decoders": {"imag": {"path": "image"}}},
        r"^model\.decoders\.imag: no modality 'imag'; .*to mend: did you mean 'image'\?",
    ),
    "a modality without an encoder": (
        {"encoders": {"text": {"path": "tower"}}},
        r"^model\.encoders\.text\.type: no installed plugin has an encoder for text",
    ),
    "a tower of something else": (
        {"encoders": {"image": {"path": "audio"}}},
        r"config of .*audio' cannot be loaded|no vision tower in",
    ),
    "a decoder of something else": (
        {"decoders": {"image": {"path": "audio"}}},
        r"^model\.decoders\.image: this generator makes no image; found: .*audio makes audio; to mend: put it under "
        r"model\.decoders\.audio, or name a generator of image$",
    ),
    "a decoder that is no generator": (
        {"decoders": {"image": {"path": "text"}}},
        r"^model\.decoders\.image: a decoder is a generator of media; found: .*text: text; to mend: name a generator$",
    ),
    "no decoder there": (
        {"decoders": {"image": {"path": "/nowhere"}}},
        r"^model\.decoders\.image: no model at /nowhere; .*to mend: check the path$",
    ),
    "heads of a decoder": (
        {"decoders": {"image": {"path": "image", "connector": {"heads": 5}}}},
        r"^model\.decoders\.image\.connector\.heads: heads must divide the backbone's width; found: 5, of a width of 6",
    ),
    "settings of a decoder's connector": (
        {"decoders": {"image": {"path": "image", "connector": {"query": 8}}}},
        r"^model\.decoders\.image\.connector\.query: Extra inputs",
    ),
}


def placed(given: Mapping[str, object], parts: Path) -> dict[str, object]:
    """Parts with the folders they name."""
    found: dict[str, object] = {}
    for side, named in given.items():
        assert isinstance(named, Mapping)
        found[side] = {name: {**one, "path": str(parts / str(one["path"]))} for name, one in named.items()}
    return found


def run(*words: str) -> object:
    return app(list(words), exit_on_error=False, print_error=False, result_action="return_value")


@pytest.mark.parametrize("wrong", WRONG)
def test_parts_that_cannot_be_put_together_are_said(wrong: str, parts: Path, tmp_path: Path) -> None:
    given, says = WRONG[wrong]
    settings = placed(given, parts)
    with pytest.raises(ModalignError, match=says):
        modalign.compose(parts / "text", **settings)  # pyright: ignore[reportArgumentType]
    config = {
        "model": {"path": str(parts / "text"), **settings},
        "data": {"path": str(parts / "rows.jsonl")},
        "objective": {"name": "dpo"},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "whole.yaml").write_text(json.dumps(config))
    with pytest.raises(ModalignError, match=says):
        run("train", str(tmp_path / "whole.yaml"))
    assert not (tmp_path / "run").exists()


def test_a_connector_that_is_left_out_is_said_by_compose_too(parts: Path) -> None:
    with pytest.raises(ConfigError, match=WRONG["widths without a connector"][1]):
        modalign.compose(parts / "text", encoders={"image": parts / "tower"}, connectors={"image": None})
    with pytest.raises(ModelError, match=r"^connectors\.blob: these parts do not fit without a connector; .*8 .*16"):
        Model(assembly=ToyAssembly(), backbone=ToyBackbone(), encoders={"blob": ToyEncoder(width=8)})


def test_flags_say_the_same(parts: Path, tmp_path: Path) -> None:
    flags = ["--data", str(parts / "rows.jsonl"), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ModalignError, match=WRONG["a decoder of nobody's modality"][1]):
        run("train", "dpo", "--model", str(parts / "text"), "--model.decoders.smell", str(parts / "image"), *flags)


# --- two for one modality ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["encoders", "decoders"])
def test_two_parts_for_one_modality_are_said(side: str, parts: Path, tmp_path: Path) -> None:
    both = [str(parts / "image"), str(parts / "audio")]
    says = rf"2 {side} for image, and nothing says which"
    with pytest.raises(
        ConfigError, match=rf"^model\.{side}\.image: {says}; found: .*image, .*audio; to mend: name one"
    ):
        modalign.compose(parts / "text", **{side: {"image": both}})  # pyright: ignore[reportArgumentType]
    listed = {"image": [{"path": one} for one in both]}
    with pytest.raises(ConfigError, match=rf"^{side}: {says}: name one of them"):
        modalign.load(parts / "text", **{side: listed})
    file, rest = tmp_path / "two.yaml", f"data: {parts}/rows.jsonl\nobjective: {{name: dpo}}\n"
    file.write_text(f"model:\n  path: {parts}/text\n  {side}:\n    image: {json.dumps(listed['image'])}\n{rest}")
    with pytest.raises(ConfigError, match=rf"two\.yaml:3: setting 'model\.{side}': {says}"):
        run("train", str(file))
    each = "".join(f"    image: {{path: {one}}}\n" for one in both)
    file.write_text(f"model:\n  path: {parts}/text\n  {side}:\n{each}{rest}")
    with pytest.raises(ConfigError, match=r"two\.yaml:5: not valid YAML; found: found duplicate key"):
        run("train", str(file))
    flags = [word for one in both for word in (f"--model.{side}.image.path", one)]
    with pytest.raises(ConfigError, match=rf"--model\.{side}\.image\.path is given twice, and nothing says which"):
        run("train", "dpo", "--model", str(parts / "text"), *flags, "--data", str(parts / "rows.jsonl"))


def test_a_folder_that_two_loaders_claim_is_said_and_the_choice_is_taken(parts: Path) -> None:
    def register_loaders(register) -> None:
        register("rival", "modalign_image.painter:ImagePainterLoader")

    with registry.scoped(SimpleNamespace(register_loaders=hookimpl(register_loaders)), name="rival"):
        with pytest.raises(
            ModelError, match=r"^model\.decoders\.image: more than one loader claims .*say which: model\."
        ):
            modalign.compose(parts / "text", decoders={"image": parts / "image"})
        chosen = DecoderConfig(path=str(parts / "audio"), loader="rival", connector={"heads": 4})
        with pytest.raises(ConfigError, match=r"this generator makes no audio; .* makes image"):
            modalign.compose(parts / "text", decoders={"audio": chosen})


def test_two_encoders_of_one_modality_need_a_choice(parts: Path) -> None:
    def register_encoders(register) -> None:
        register("nose", "modalign.testing.doubles:ToyEncoder", modality="image")

    rival = registry.scoped(SimpleNamespace(register_encoders=hookimpl(register_encoders)), name="rival")
    with rival, pytest.raises(ConfigError, match=r"^model\.encoders\.image\.type: which encoder for image\?; .*, nose"):
        modalign.compose(parts / "text", encoders={"image": EncoderConfig(path=str(parts / "tower"))})


# --- responses -----------------------------------------------------------------------------------------------------


def test_a_response_that_opens_a_medium_is_said_before_the_model_is_loaded(parts: Path, tmp_path: Path) -> None:
    flags = ["--data", str(parts / "opened.jsonl"), "--output_dir", str(tmp_path / "run")]
    says = (
        r"opened\.jsonl:1 field=chosen: the response opens image in words, and never closes it; found: \.\.\.Here: "
        r'<\|image\|>\.\.\.; to mend: give the medium as a block, {"type": "image", \.\.\.}'
    )
    with pytest.raises(DataError, match=says):
        run("train", "dpo", "--model", str(parts / "text"), "--model.decoders.image", str(parts / "image"), *flags)
    with pytest.raises(DataError, match=says):
        run("train", "dpo", "--model", str(parts / "whole"), *flags)
    assert not (tmp_path / "run").exists()


# --- saved ones ----------------------------------------------------------------------------------------------------


def test_a_saved_composition_says_what_each_part_is_and_whose(parts: Path) -> None:
    said = json.loads((parts / "whole" / COMPOSITION).read_text())["origins"]
    own = {"distribution": "modalign", "version": version("modalign")}
    assert said == {
        "modalities.image": {"kind": "modalities", "name": "image", "plugin": "image", **own},
        "modalities.audio": {"kind": "modalities", "name": "audio", "plugin": "audio", **own},
        "encoders.image": {"kind": "encoders", "name": "vision", "plugin": "image", **own},
        "connectors.image": {"kind": "connectors", "name": "linear", "plugin": "core", **own},
        "decoders.image": {"kind": "loaders", "name": "image-painters", "plugin": "image", **own},
        "decoders.audio": {"kind": "loaders", "name": "audio-painters", "plugin": "audio", **own},
    }


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        (
            "encoders.image",
            {"distribution": "modalign-smell", "version": "0.3", "plugin": "smell", "name": "nose"},
            r"modalign_composition\.json: encoders\.image: this model is made of plugin 'smell' of modalign-smell 0\.3,"
            r" which is not here; found: no encoder 'nose'; modalign-smell is not installed; to mend: "
            r"pip install modalign-smell$",
        ),
        (
            "decoders.audio",
            {"name": "audio-painters-2"},
            r"decoders\.audio: this model is made of plugin 'audio' of modalign .*found: no loader 'audio-painters-2'; "
            r'modalign is here, but without it; to mend: pip install "modalign\[audio\]"$',
        ),
        ("connectors.image", {"name": "rivets"}, r"no connector 'rivets'; .*to mend: pip install modalign$"),
        ("modalities.audio", {"name": "smell"}, r"no modality 'smell'; "),
    ],
)
def test_a_saved_composition_whose_plugin_is_not_here_names_the_command(
    part: str, change: Mapping[str, str], says: str, parts: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(parts / "whole", tmp_path / "whole")
    said = json.loads((place / COMPOSITION).read_text())
    said["origins"][part] |= change
    (place / COMPOSITION).write_text(json.dumps(said))
    with pytest.raises(PluginError, match=says):
        modalign.load(place)
    with pytest.raises(PluginError, match=says):
        run("generate", "--model", str(place), "--prompt", "Show me rain")


def test_a_plugin_whose_extra_is_missing_is_named_with_its_own_mend(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.registry import Registry
    from modalign_text.multimodal import origins

    missing = discovery._missing

    def without(owner: object, extras: frozenset[str]) -> list[str]:
        return ["soundfile is missing"] if "audio" in extras else missing(owner, extras)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(discovery, "_missing", without)
    monkeypatch.setattr(origins, "registry", Registry())
    says = (
        r"decoders\.audio: .*found: no .*needs packages that are not installed \(soundfile is missing\); to mend: pip"
    )
    with pytest.raises(PluginError, match=says.replace("decoders", "(decoders|modalities)")):
        modalign.load(parts / "whole")


def test_what_a_checkpoint_says_is_no_command_of_its_own(parts: Path, tmp_path: Path) -> None:
    place = shutil.copytree(parts / "whole", tmp_path / "whole")
    said = json.loads((place / COMPOSITION).read_text())
    said["origins"]["encoders.image"]["distribution"] = "x; rm -rf /"
    (place / COMPOSITION).write_text(json.dumps(said))
    with pytest.raises(ModalignError, match="the parts of this model cannot be read"):
        modalign.load(place)


def test_parts_that_the_config_names_anew_need_not_be_here_as_they_were(parts: Path, tmp_path: Path) -> None:
    place = shutil.copytree(parts / "whole", tmp_path / "whole")
    said = json.loads((place / COMPOSITION).read_text())
    said["origins"]["encoders.image"]["name"] = "nose"
    (place / COMPOSITION).write_text(json.dumps(said))
    with pytest.raises(ConfigError, match="these parts do not fit without a connector"):  # which is asked after them
        modalign.load(place, encoders={"image": {"path": str(parts / "tower"), "connector": None}})
