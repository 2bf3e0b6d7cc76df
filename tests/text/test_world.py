"""The oracle world in sentences: exact, robust to how they are written, unreadable where they say anything else."""

from __future__ import annotations

import random

import pytest

from modalign.content import Part
from modalign.world import VALUES, Concept, concepts
from modalign_text.world import Sentence, read_sentence, sentence

NAMES = frozenset(VALUES)
FULL = Concept(
    count=2, shape="circle", colour="red", side="left", motion="up", pitch="low", time="early", harmless=True
)
SAID = "Two red circles on the left, moving up, with a low sound early. Nobody is hurt."


def test_a_sentence_says_everything():
    assert sentence(FULL) == SAID


def test_every_concept_is_read_back():
    assert all(read_sentence(sentence(concept)) == concept for concept in concepts(NAMES))


def test_concepts_that_leave_things_open_are_read_back():
    chance = random.Random(0)
    for _ in range(60):
        names = chance.sample(list(VALUES), chance.randint(1, 7))
        assert all(read_sentence(sentence(concept)) == concept for concept in concepts(names))


@pytest.mark.parametrize(
    "text",
    [
        SAID.upper(),
        SAID.replace(" ", "\n  "),
        SAID.replace(",", "").replace(".", ""),
        SAID.replace(",", " , ").replace(".", " . ."),
        "Nobody is hurt: moving up with a low sound early, two red circles; on the left!",
    ],
)
def test_case_spacing_punctuation_and_the_order_of_clauses_do_not_matter(text):
    assert read_sentence(text) == FULL


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Roses are red.",
        SAID + " Really.",
        SAID.replace("red", "red blue"),
        SAID.replace("red", "mauve"),
        SAID + " Somebody is hurt.",
        SAID + " On the left.",
        SAID.replace("Two", "One"),
        SAID.replace("circles", "circle"),
        SAID.replace("moving up", "moving"),
        "two two red circles",
        "with a sound",
        "circles red two",
    ],
)
def test_what_says_anything_else_or_contradicts_itself_is_unreadable(text):
    assert read_sentence(text) is None


def test_shuffled_words_and_random_words_are_not_guessed():
    chance = random.Random(0)
    words = SAID.split()
    for _ in range(300):
        shuffled = " ".join(chance.sample(words, len(words)))
        assert read_sentence(shuffled) in (None, FULL)
        assert read_sentence(" ".join(chance.choices(words, k=12))) is None


def test_a_part_that_is_no_string_is_unreadable():
    assert Sentence().read(Part(modality="text", value=b"Two circles.")) is None


def test_the_student_knows_every_word_and_gives_sentences_back_as_written(tmp_path):
    from transformers import AutoTokenizer

    from modalign.world import ask

    folder = Sentence().student(tmp_path / "student", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for concept in random.Random(0).sample(list(concepts(NAMES)), 100):
        for text in (ask(concept), sentence(concept)):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def test_the_student_is_small_and_the_same_for_the_same_seed(tmp_path):
    files = [Sentence().student(tmp_path / str(number), seed=seed) for number, seed in enumerate((0, 0, 1))]
    weights = [(folder / "model.safetensors").read_bytes() for folder in files]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert len(weights[0]) < 4 * 100_000 + 8192  # 0.1 M float32 weights and a header
