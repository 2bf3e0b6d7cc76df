"""Any tower before any language model: what is laid out, trained, counted, saved and refused."""

import json
import math
from pathlib import Path

import pytest
import torch

import modalign
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError, PluginError
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training import Trainer
from modalign_audio.testing import tiny_audio
from modalign_image.testing import tiny_vision
from modalign_text.multimodal.cases import PLACES, answer, in_prompt, in_responses, medium, message
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.testing import tiny_video

TOWERS = {
    "clip": ("image", "vision"),
    "siglip": ("image", "vision"),
    "dinov2": ("image", "vision"),
    "whisper": ("audio", "audio"),
    "clap": ("audio", "audio"),
    "ast": ("audio", "audio"),
    "videomae": ("video", "video"),
    "frames-over-clip": ("video", "frames"),
}
MAKE = {"image": tiny_vision, "audio": tiny_audio, "video": tiny_video}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def composed(folder: Path, *towers: str, language: str = "llama", connector: str = "mlp", **settings: object) -> Model:
    """A tiny language model with towers before it."""
    words = folder / language
    if not words.is_dir():
        tiny_model(words, language, scale=4.0)
    encoders: dict[str, object] = {}
    media = {}
    for tower in towers:
        modality, kind = TOWERS[tower]
        if not (folder / tower).is_dir():
            MAKE[modality](folder / tower, tower)
        options = {"queries": 3} if connector == "query" else {}
        encoders[modality] = {
            "path": str(folder / tower),
            "type": kind,
            "connector": {"type": connector, "options": options},
        }
        if modality == "video":
            media["video"] = {"frames": 4}
    return modalign.load(words, encoders=encoders, **({"media": media} if media else {}), **settings)


def batch(model: Model, comparisons: list[Comparison], *, share: bool = True):
    preparer = model.assembly.preparer
    samples = [Sample(comparison=one, encoded=preparer.encode(one), own=2) for one in comparisons]
    return assemble(samples, share=share, pad=preparer.pad)


@pytest.mark.parametrize("tower", TOWERS)
def test_shared_and_separate_rows_agree_and_media_show(folder: Path, tower: str) -> None:
    modality, _ = TOWERS[tower]
    model = composed(folder, tower).eval()
    assert model.shares
    for place in PLACES.values():
        with torch.no_grad():
            shared, apart = (
                model(batch(model, [place(modality)], share=share), Draws()).logps for share in (True, False)
            )
        torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        one, other = (model(batch(model, [in_prompt(modality, seed)]), Draws()).logps for seed in (0, 7))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("language", ["llama", "qwen2", "gemma3_text", "mistral", "mamba"])
def test_any_language_model_takes_a_tower(folder: Path, language: str) -> None:
    model = composed(folder, "clip", language=language).eval()
    with torch.no_grad():
        found = [
            model(batch(model, [in_prompt("image")], share=share), Draws()).logps for share in {model.shares, False}
        ]
    for one in found:
        assert bool(one.isfinite().all())
        torch.testing.assert_close(one, found[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("connector", ["linear", "mlp", "query"])
def test_a_connector_says_how_many_tokens_a_medium_takes(folder: Path, connector: str) -> None:
    model = composed(folder, "clip", connector=connector)
    (one, _) = model.assembly.preparer.encode(in_prompt("image"))
    (slot,) = one.slots
    assert slot.stop - slot.start == (3 if connector == "query" else 16)
    model(batch(model, [in_prompt("image")]), Draws()).logps.sum().backward()
    assert all(value.grad is not None for value in model.connectors.parameters())
    assert not any(value.requires_grad for value in model.encoders.parameters())


def test_towers_of_three_modalities_in_one_prompt(folder: Path) -> None:
    model = composed(folder, "clip", "whisper", "frames-over-clip").eval()
    parts = [medium("image"), " and ", medium("audio"), medium("video"), " together"]
    pair = Comparison.pair([message("user", *parts)], answer("yes"), answer("not at all"))
    with torch.no_grad():
        shared, apart = (model(batch(model, [pair], share=share), Draws()).logps for share in (True, False))
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-4)
    assert model.assembly.takes == {"text", "image", "audio", "video"}


@pytest.mark.parametrize("adapter", [None, AdapterConfig(r=2)])
def test_a_composed_model_trains_with_each_medium_seen_once(
    folder: Path, adapter: AdapterConfig | None, tmp_path: Path
) -> None:
    model = composed(folder, "clip", adapter=adapter)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    data = [in_prompt("image"), in_responses("image")]
    Trainer(
        model=model,
        objective=DPO(),
        data=data,
        output_dir=tmp_path / "run",
        max_steps=3,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
    ).train()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["encoder/image/passes"] for row in rows[:3]] == [3.0, 3.0, 3.0]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[2]["loss"] < rows[0]["loss"]
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert "connectors" in moved
    assert "encoders" not in moved


def test_what_is_saved_comes_back_whole(folder: Path, tmp_path: Path) -> None:
    model = composed(folder, "clip", "frames-over-clip")
    with torch.no_grad():
        for value in model.connectors.parameters():
            value.add_(0.1)
    model.save(tmp_path / "saved")
    again = modalign.load(tmp_path / "saved")
    with torch.no_grad():
        one, other = (each.eval()(batch(each, [in_prompt("image")]), Draws()).logps for each in (model, again))
    assert torch.equal(one, other)
    prompt = in_prompt("image").prompt
    assert again.generate([prompt], max_new_tokens=5) == model.generate([prompt], max_new_tokens=5)


def test_a_run_with_adapters_comes_back_on_its_base(folder: Path, tmp_path: Path) -> None:
    model = composed(folder, "clip", adapter=AdapterConfig(r=2))
    Trainer(
        model=model,
        objective=DPO(),
        data=[in_prompt("image")],
        output_dir=tmp_path / "run",
        max_steps=2,
        learning_rate=1e-2,
    ).train()
    again = modalign.load(tmp_path / "run/final")
    with torch.no_grad():
        one, other = (each.eval()(batch(each, [in_prompt("image")]), Draws()).logps for each in (model, again))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-5)


def test_workers_prepare_media_as_the_main_process_does(folder: Path, tmp_path: Path) -> None:
    losses = []
    for workers in (0, 2):
        run = tmp_path / str(workers)
        Trainer(
            model=composed(folder, "clip"),
            objective=DPO(),
            data=[in_prompt("image", n) for n in range(4)],
            output_dir=run,
            max_steps=4,
            learning_rate=1e-2,
            dataloader_num_workers=workers,
        ).train()
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("encoders", "error", "says"),
    [
        ({"video": {"path": "clip"}}, ConfigError, "which encoder for video.*video, frames"),
        ({"smell": {"path": "clip"}}, PluginError, "no modality 'smell'; found: registered: audio, image, text, video"),
        ({"text": {"path": "clip"}}, ConfigError, "no installed plugin has an encoder for text"),
        ({"audio": {"path": "clip", "type": "vision"}}, ConfigError, "'vision' is no encoder for audio"),
        ({"image": {"path": "clip", "type": "nothing"}}, PluginError, "nothing"),
        ({"image": {"path": "llama"}}, ModelError, "llama"),
        ({"image": {"path": "not/here/at/all"}}, ModelError, "not/here/at/all"),
        ({"image": {"path": "clip", "options": {"layr": 1}}}, ConfigError, "layr"),
        ({"image": {"path": "clip", "connector": {"type": "bridge"}}}, PluginError, "bridge"),
        ({"image": {"path": "clip", "connector": {"type": "mlp", "options": {"dept": 1}}}}, ConfigError, "dept"),
    ],
)
def test_what_cannot_be_put_together_is_refused_in_words(
    folder: Path, encoders: dict[str, dict[str, object]], error: type[Exception], says: str
) -> None:
    composed(folder, "clip")
    here = {
        name: {**one, "path": str(folder / str(one["path"])) if (folder / str(one["path"])).is_dir() else one["path"]}
        for name, one in encoders.items()
    }
    with pytest.raises(error, match=says):
        modalign.load(folder / "llama", encoders=here)


def test_media_of_a_model_without_towers_are_refused_in_words(folder: Path) -> None:
    composed(folder, "clip")
    with pytest.raises(ConfigError, match="this model reads no media"):
        modalign.load(folder / "llama", media={"image": {}})
    plain = modalign.load(folder / "llama")
    with pytest.raises(DataError, match=r"LlamaForCausalLM takes no image.*it takes text"):
        plain.assembly.preparer.encode(in_prompt("image"))
    whole = tiny_multimodal(folder / "llava")
    with pytest.raises(ConfigError, match="this checkpoint brings its own towers"):
        modalign.load(whole, encoders={"image": {"path": str(folder / "clip")}})
