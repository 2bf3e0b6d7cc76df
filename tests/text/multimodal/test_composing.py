"""Models put together in Python: parts by name, connectors of either side, what is said of the whole, rates."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import cast

import pytest

import modalign
from modalign.config import DecoderConfig, EncoderConfig
from modalign.errors import ConfigError
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Encoder
from modalign.training.config import TrainingConfig
from modalign.training.optimizer import make_optimizer
from modalign_image.testing import tiny_vision


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for name in ("text", "image", "audio"):
        registry.depiction(name).student(folder / name)
    tiny_vision(folder / "tower", "clip")
    return folder


@pytest.fixture(scope="module")
def model(parts: Path) -> Model:
    return modalign.compose(
        parts / "text",
        encoders={"image": parts / "tower"},
        decoders={"image": parts / "image", "audio": {"path": str(parts / "audio"), "weight": 0.5}},
        connectors={"encoders.image": "linear", "decoders.image": {"heads": 4, "depth": 3}, "audio": {"heads": 2}},
    )


def test_parts_and_connectors_go_where_they_are_named(model: Model) -> None:
    assert model.assembly.takes == {"text", "image"}
    assert model.assembly.gives == {"text", "image", "audio"}
    kinds = {one.name: one.kind for one in model.describe().parts}
    assert kinds["connectors.image"] == "LinearConnector"
    assert len(model.decoders["image"].conditioner.blocks) == 3  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def test_parts_may_be_configs(parts: Path) -> None:
    found = modalign.compose(
        parts / "text",
        encoders={"image": EncoderConfig(path=str(parts / "tower"))},
        decoders={"audio": DecoderConfig(path=str(parts / "audio"), connector={"heads": 4}, train=False)},
    )
    assert not any(value.requires_grad for value in found.decoders["audio"].denoiser.parameters())  # pyright: ignore[reportAttributeAccessIssue]
    assert all(value.requires_grad for value in found.decoders["audio"].conditioner.parameters())  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("connectors", "says"),
    [
        ({"image": "mlp"}, r"^connectors\.image: which part is the connector 'image' of\?; .*say encoders\.image"),
        ({"video": "mlp"}, r"^connectors\.video: a connector of no part: 'video'; found: parts: encoders\.image, dec"),
        ({"decoders.video": {}}, "a connector of no part"),
        ({"encoders.image": "mlp"}, r"^connectors\.encoders\.image: a connector is said twice"),
        ({"decoders.image": {"hats": 4}}, r"^model\.decoders\.image\.connector\.hats: Extra inputs"),
    ],
)
def test_a_connector_of_nothing_is_said(parts: Path, connectors: dict[str, str], says: str) -> None:
    tower: dict[str, object] = {"path": str(parts / "tower")}
    if "twice" in says:
        tower["connector"] = {"type": "linear"}
    with pytest.raises(ConfigError, match=says):
        modalign.compose(
            parts / "text", encoders={"image": tower}, decoders={"image": parts / "image"}, connectors=connectors
        )


def test_a_composed_model_is_a_config_too(model: Model, parts: Path) -> None:
    said = {
        "encoders": {"image": {"path": str(parts / "tower"), "connector": {"type": "linear"}}},
        "decoders": {
            "image": {"path": str(parts / "image"), "connector": {"heads": 4, "depth": 3}},
            "audio": {"path": str(parts / "audio"), "connector": {"heads": 2}, "weight": 0.5},
        },
    }
    other = modalign.load(parts / "text", **said).state_dict()
    assert {name: value.shape for name, value in other.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert all(value.equal(other[name]) for name, value in model.state_dict().items())


# --- what is said of it --------------------------------------------------------------------------------------------


def test_the_table_has_every_part_once_with_its_numbers(model: Model) -> None:
    found = model.describe()
    names = [one.name for one in found.parts]
    assert names == [
        "encoders.image",
        "connectors.image",
        "backbone",
        "decoders.text",
        "conditioners.image",
        "decoders.image",
        "conditioners.audio",
        "decoders.audio",
    ]
    table = str(found).splitlines()
    assert [line.split()[0] for line in table[1:]] == names
    held = {id(value): value.numel() for value in model.parameters()}
    tied = model.decoders["text"].head.weight.numel()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert sum(one.parameters for one in found.parts) == sum(held.values()) + tied
    trains = {one.name: one.trains for one in found.parts}
    assert trains["encoders.image"] == 0
    assert all(count for name, count in trains.items() if name != "encoders.image")
    assert set(found.edges) == {
        ("encoders.image", "connectors.image"),
        ("connectors.image", "backbone"),
        ("backbone", "decoders.text"),
        ("backbone", "conditioners.image"),
        ("conditioners.image", "decoders.image"),
        ("backbone", "conditioners.audio"),
        ("conditioners.audio", "decoders.audio"),
    }


def test_what_an_encoder_brings_to_connect_it_is_counted_with_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {one.name: one.parameters for one in model.describe().parts}
    encoder = cast(Encoder, model.encoders["image"])
    monkeypatch.setattr(encoder, "parts", lambda: ([], [encoder]))
    assert {one.name: one.parameters for one in model.describe().parts} == before


def test_the_drawings_have_a_box_for_each_part_and_a_line_for_each_edge(model: Model) -> None:
    found = model.describe()
    drawn = ET.fromstring(found.svg())
    space = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{space}rect")) == len(found.parts)
    assert len(drawn.findall(f"{space}path")) == len(found.edges)
    boxes = [(float(one.get("x", "")), float(one.get("y", ""))) for one in drawn.findall(f"{space}rect")]
    assert len(set(boxes)) == len(boxes)
    mermaid = found.mermaid().splitlines()
    assert mermaid[0] == "flowchart LR"
    assert sum(" --> " in line for line in mermaid) == len(found.edges)
    assert sum("stroke-width" in line for line in mermaid) == sum(one.trains > 0 for one in found.parts)


def test_no_line_of_the_drawing_goes_behind_a_box(model: Model) -> None:
    found = model.describe()
    drawn = ET.fromstring(found.svg())
    space = "{http://www.w3.org/2000/svg}"
    boxes = [
        [float(one.get(name, "")) for name in ("x", "y", "width", "height")] for one in drawn.findall(f"{space}rect")
    ]
    lines = [
        [float(number) for number in re.findall(r"[\d.]+", line.get("d", ""))] for line in drawn.findall(f"{space}path")
    ]
    for edge, (x, y, left, *bend, to) in zip(found.edges, lines, strict=True):
        assert x <= left <= bend[4] <= to
        assert bend[1] == y
        assert bend[5] == y or "backbone" in edge  # what leads to one part alone lies beside it
        for over, under, wide, high in boxes:
            for start, end, at in ((x, left, y), (bend[4], to, bend[5])):
                assert not (start < over + wide and over < end and under <= at <= under + high), edge


def test_a_model_of_one_generator_is_described_too(parts: Path) -> None:
    found = modalign.load(parts / "image").describe()
    assert [one.name for one in found.parts] == ["decoders.image"]
    assert "PainterDenoiser" in str(found)
    assert "<rect" in found.svg()


# --- rates of parts ------------------------------------------------------------------------------------------------


def test_each_part_trains_at_its_own_rate(model: Model) -> None:
    config = TrainingConfig(
        learning_rate=1e-5, learning_rates={"decoders": 1e-4, "decoders.audio": 2e-4, "connectors": 1e-3}
    )
    rates = {
        id(value): group["peak"] for group in make_optimizer(model, config).param_groups for value in group["params"]
    }
    expected = {
        "backbone": 1e-5,
        "connectors.image": 1e-3,
        "decoders.image.conditioner": 1e-3,
        "decoders.image.denoiser": 1e-4,
        "decoders.audio.denoiser": 2e-4,
    }
    for name, value in model.trainable().items():
        (rate,) = [rate for part, rate in expected.items() if name.startswith(f"{part}.")] or [None]
        if rate is not None and "embed_tokens" not in name:  # which is the head of a decoder as well
            assert rates[id(value)] == rate, name


def test_a_rate_of_no_part_is_said(model: Model) -> None:
    config = TrainingConfig(learning_rates={"decoders.video": 1e-4})
    with pytest.raises(ConfigError, match=r"^learning_rates\.decoders\.video: this model has no part"):
        make_optimizer(model, config)
