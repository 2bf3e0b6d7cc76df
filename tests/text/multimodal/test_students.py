"""The tiny untrained models of the oracle world: equal seeds make equal ones, and they begin to learn at once."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modalign
from modalign.objectives import SFT
from modalign.registry import registry
from modalign.training import Trainer
from modalign.world import EVERY, Concept, answer, question
from modalign.world.questions import PHRASES
from modalign_text.student import save_student
from modalign_text.tokens import Tokeniser

MODALITIES = ("image", "audio", "video")


def tower(modality: str, folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    import_module(f"modalign_{modality}.student").save_encoder(folder, seed=seed)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("modality", MODALITIES)
def test_equal_seeds_make_equal_towers_and_touch_no_other_chance(modality: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = (tower(modality, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert torch.get_rng_state().equal(before)
    assert all(value.equal(same[name]) for name, value in one.items())
    assert any(not value.equal(other[name]) for name, value in one.items())


def test_every_word_of_a_question_and_an_answer_is_a_word_of_its_own(tmp_path: Path) -> None:
    tokenizer = modalign.load(save_student(tmp_path, questions=True)).assembly.preparer.tokenizer  # type: ignore[attr-defined]
    unknown = tokenizer.unk_token_id
    texts = [question([name]) for name in PHRASES] + [question(["shape", "order"])]
    texts += [answer(Concept.of({name: value}), [name]) for name, values in EVERY.items() for value in values]
    for text in texts:
        ids = Tokeniser(tokenizer).read(text).ids
        assert unknown not in ids
        assert tokenizer.decode(list(ids)).strip() == text


def test_the_student_of_the_quickstart_has_no_words_it_does_not_need(tmp_path: Path) -> None:
    sizes = [
        len(modalign.load(save_student(tmp_path / str(number), questions=asks)).assembly.preparer.tokenizer)  # type: ignore[attr-defined]
        for number, asks in enumerate((False, True))
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_tower_before_it_begins_to_learn_at_once(modality: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = import_module(f"modalign_{modality}.student").save_encoder(tmp_path / "tower")
    model = modalign.load(save_student(tmp_path / "words", questions=True), encoders={modality: config}, freeze=())
    before = {name: value.clone() for name, value in model.encoders.named_parameters()}
    assert modality in registry.depictions()
    trainer = Trainer(
        model=model,
        objective=SFT(),
        data=modalign.read("oracle", split=f"about/{modality}/clean", limit=64),
        output_dir=tmp_path / "run",
        max_steps=12,
        learning_rate=2e-3,
        per_device_train_batch_size=8,
        logging_steps=1,
        quiet=True,
    )
    result = trainer.train()
    assert result.metrics["loss"] < 3.0  # log of about 100 words is 4.6
    assert any(not value.equal(before[name]) for name, value in model.encoders.named_parameters())
