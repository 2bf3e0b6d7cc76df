"""Training with media: towers run once per medium and step, what is frozen stays, and what is saved comes back."""

import json
import math
from pathlib import Path
from typing import cast

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modalign
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Part
from modalign.data import prepare, read
from modalign.errors import ConfigError, DataError, Foreign
from modalign.objectives import DPO, KTO, SFT, Objective
from modalign.training import Trainer, TrainingConfig
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.cases import answer, in_history, in_prompt, in_responses, loaded, medium, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def pairs(modality: str) -> list[Comparison]:
    """Two pairs with a medium in the prompt, one without any, one whose responses show two."""
    bare = Comparison.pair([message("user", "hello")], answer("hi"), answer("go away now"))
    return [in_prompt(modality, 0), bare, in_responses(modality), in_prompt(modality, 5)]


def train(
    model: modalign.Model, objective: Objective, data: list[Comparison], folder: Path, **settings: object
) -> list[dict[str, float]]:
    config = TrainingConfig.model_validate(
        {"output_dir": folder, "max_steps": 2, "per_device_train_batch_size": len(data), "learning_rate": 1e-3}
        | settings
    )
    Trainer(model=model, objective=objective, data=data, config=config).train()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("family", "modality", "settings"),
    [
        ("llava", "image", {}),  # the projector trains, the tower behind it does not
        ("llava", "image", {"adapter": AdapterConfig(r=2)}),
        ("llava", "image", {"freeze": ("encoders", "connectors")}),
        ("smolvlm", "image", {}),
        ("qwen2_5_vl", "image", {}),
        ("qwen2_5_vl", "video", {"adapter": AdapterConfig(r=2)}),
        ("qwen2_audio", "audio", {}),
        ("qwen3_omni_moe_thinker", "video", {}),
    ],
)
def test_a_frozen_tower_sees_each_medium_once_a_step(
    family: str, modality: str, settings: dict[str, object], folder: Path, tmp_path: Path
) -> None:
    model = loaded(folder, family, **settings)
    rows = train(model, DPO(), pairs(modality), tmp_path / "run")
    # 2 media in prompts and 2 in responses: for policy and reference, chosen and rejected, 4 passes and no more
    assert [row[f"encoder/{modality}/passes"] for row in rows[:2]] == [4.0, 4.0]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[1]["loss"] < rows[0]["loss"]


def test_an_evaluation_between_steps_is_not_counted_as_theirs(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "llava")
    Trainer(
        model=model,
        objective=DPO(),
        data=pairs("image"),
        eval_data=pairs("image"),
        output_dir=tmp_path / "run",
        max_steps=3,
        eval_steps=1,
        per_device_train_batch_size=4,
    ).train()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["encoder/image/passes"] for row in rows if "encoder/image/passes" in row] == [4.0, 4.0, 4.0]


def test_a_tower_that_trains_runs_for_policy_and_reference(folder: Path, tmp_path: Path) -> None:
    rows = train(loaded(folder, "llava", freeze=()), DPO(), pairs("image"), tmp_path / "run")
    assert rows[0]["encoder/image/passes"] == 8.0
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_statistics_of_a_step_in_pieces_see_each_medium_once(folder: Path, tmp_path: Path) -> None:
    rows = train(
        loaded(folder, "llava"),
        KTO(),
        pairs("image"),
        tmp_path / "run",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    # in two micro-batches, each gone through for z0 and again for the loss, with mismatched responses beside
    assert rows[0]["encoder/image/passes"] == 4.0
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-6)


def test_the_same_picture_in_two_micro_batches_of_a_step(folder: Path, tmp_path: Path) -> None:
    # full fine-tuning: the embeddings begin with a table that trains, and the memo outlives the first backward pass
    rows = train(
        loaded(folder, "qwen2_5_vl"),
        SFT(),
        [in_prompt("image", 0), in_prompt("image", 0)],
        tmp_path / "run",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
    )
    assert rows[0]["encoder/image/passes"] == 1.0


def test_the_same_bytes_may_be_two_media() -> None:
    one, other = (Part(modality=name, value=b"GIF89a") for name in ("image", "video"))
    assert one.digest != other.digest


def test_a_projector_that_is_saved_whole_beside_adapters_trains(folder: Path, tmp_path: Path) -> None:
    adapter = AdapterConfig(
        r=2,
        target_modules=("language_model.layers.0.self_attn.q_proj",),
        modules_to_save=("multi_modal_projector",),
    )
    model = loaded(folder, "llava", adapter=adapter)
    trains = [name for name in model.trainable() if "modules_to_save" in name]
    assert trains
    before = {name: model.get_parameter(name).detach().clone() for name in trains}
    rows = train(model, DPO(), pairs("image"), tmp_path / "run", learning_rate=1e-2)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert not any(torch.equal(model.get_parameter(name), before[name]) for name in trains)


def test_a_picture_shown_twice_is_cut_off_once(folder: Path) -> None:
    preparer = loaded(folder, "llava").assembly.preparer
    turns = [
        message("user", medium("image"), "what?"),
        message("assistant", "a cat"),
        message("user", medium("image"), "sure?"),
    ]
    pair = Comparison.pair(turns, answer("yes"), answer("no"))
    whole = len(preparer.encode(pair)[0].tokens)
    (one, _) = preparer.encode(pair, max_length=whole - 30, truncate="prompt")
    assert len(one.slots) == 1
    shown = Comparison.pair([message("user", medium("image"), "again")], answer(medium("image"), "there"), answer("no"))
    longest = len(preparer.encode(shown)[0].tokens)
    (one, _) = preparer.encode(shown, max_length=longest - 2, truncate="response")
    assert len(one.slots) == 2


@pytest.mark.parametrize("family", ["qwen2_5_omni_thinker", "qwen2_5_vl"])
@pytest.mark.parametrize("truncate", ["prompt", "response"])
def test_every_length_leaves_a_sequence_or_says_why_not(family: str, truncate: str, folder: Path) -> None:
    preparer = loaded(folder, family).assembly.preparer
    pair = in_history("image") if truncate == "prompt" else in_responses("image")
    longest = max(len(one.tokens) for one in preparer.encode(pair))
    for length in range(8, longest):
        try:
            found = preparer.encode(pair, max_length=length, truncate=truncate)
        except DataError:
            continue
        assert all(len(one.tokens) <= length for one in found)


def test_a_part_that_holds_adapters_cannot_be_frozen(folder: Path) -> None:
    with pytest.raises(ConfigError, match="backbone holds the adapters"):
        loaded(folder, "llava", adapter=AdapterConfig(r=2), freeze=("encoders", "backbone"))


def test_what_is_frozen_does_not_move_and_the_rest_does(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "llava", freeze=("encoders", "backbone"))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model, DPO(), pairs("image"), tmp_path / "run")
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert any("multi_modal_projector" in name for name in moved)
    assert not any("vision_tower" in name or name.startswith("backbone") for name in moved)


def test_a_part_that_is_not_there_cannot_be_frozen(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no part 'tower'.*parts: encoders, connectors"):
        loaded(folder, "llava", freeze=("tower",))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_trained_model_comes_back_for_us_and_for_transformers(family: str, folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, family)
    data = pairs("image")
    train(model, SFT(), data, tmp_path / "run")
    again = modalign.load(tmp_path / "run/final")
    prompt = in_prompt("image").prompt
    assert again.generate([prompt], max_new_tokens=6) == model.generate([prompt], max_new_tokens=6)
    library = AutoModelForMultimodalLM.from_pretrained(tmp_path / "run/final")
    AutoProcessor.from_pretrained(tmp_path / "run/final")
    trained = cast(MultimodalAssembly, model.assembly).library.state_dict()
    for name, value in library.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=0)


def test_adapters_come_back_on_their_base(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "qwen2_5_vl", adapter=AdapterConfig(r=2))
    assert not any("lora" in name for name, _ in model.encoders.named_parameters())
    train(model, DPO(), pairs("image"), tmp_path / "run")
    again = modalign.load(tmp_path / "run/final")
    prompt = in_prompt("image").prompt
    assert again.generate([prompt], max_new_tokens=6) == model.generate([prompt], max_new_tokens=6)


def test_a_medium_no_tower_takes_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    said = r"LlavaForConditionalGeneration takes no audio.*it takes image, text"
    model = loaded(folder, "llava")
    with pytest.raises(DataError, match=said):
        train(model, DPO(), [in_prompt("audio")], tmp_path / "run")
    # nor can it be skipped: the model is another than the data are for
    rows = [in_prompt("image", seed) for seed in range(3)] + [in_prompt("audio")]
    data = read(rows, on_bad_row="skip", max_bad_fraction=1.0)
    for workers in (0, 1):
        with pytest.raises(Foreign, match=rf":4 field=prompt: {said}"):
            prepare(data, model.assembly.preparer, DPO().needs, workers=workers)


def test_settings_of_a_medium_no_tower_takes_are_refused_at_load(folder: Path) -> None:
    with pytest.raises(ConfigError, match="LlavaForConditionalGeneration takes no audio"):
        loaded(folder, "llava", media={"audio": {}})
    with pytest.raises(ConfigError, match=r"model\.media\.image\.widht"):
        loaded(folder, "llava", media={"image": {"widht": 3}})


def test_a_prompt_cut_to_length_loses_media_whole(folder: Path) -> None:
    preparer = loaded(folder, "llava").assembly.preparer
    pair = Comparison.pair(
        [message("user", "a long beginning, then ", medium("image"), " and what is it?")], answer("a"), answer("b")
    )
    whole = preparer.encode(pair)
    for length in range(24, len(whole[0].tokens)):
        for one in preparer.encode(pair, max_length=length, truncate="prompt"):
            assert len(one.tokens) <= length
            assert sum(slot.stop - slot.start for slot in one.slots) in (0, 16)
            assert set(one.media) == {slot.digest for slot in one.slots}
