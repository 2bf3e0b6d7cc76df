"""The oracle world in tones: read back exactly, through noise and its file format, and never guessed."""

from __future__ import annotations

import pytest
import soundfile
import torch

from modalign.content import Part
from modalign.errors import DataError
from modalign.world import Concept, concepts
from modalign_audio.modality import AudioModality
from modalign_audio.world import AudioDepiction

DEPICTION, MODALITY = AudioDepiction(), AudioModality()
CONCEPTS = list(concepts(DEPICTION.attributes))
NOISE = 0.1  # standard deviation that the depiction states


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def part(value):
    return Part(modality="audio", value=value)


def value_of(concept, seed):
    value = DEPICTION.depict(concept, seed=seed).value
    assert isinstance(value, torch.Tensor)
    return value


def test_every_concept_is_read_back_at_many_seeds():
    for seed in range(40):
        for concept in CONCEPTS:
            assert DEPICTION.read(DEPICTION.depict(concept, seed=seed)) == concept


def test_seeds_move_what_is_free_and_nothing_else():
    concept = CONCEPTS[0]
    assert value_of(concept, 1).equal(value_of(concept, 1))
    assert not value_of(concept, 1).equal(value_of(concept, 2))


def test_what_is_left_open_is_shown_somehow():
    for concept in CONCEPTS[:: max(1, len(CONCEPTS) // 12)]:
        name = concept.attributes[0]
        found = DEPICTION.read(DEPICTION.depict(concept.only({name}), seed=3))
        assert found is not None
        assert found.said[name] == concept.said[name]


def test_a_beep_of_one_tone_has_no_order():
    for concept in concepts({"count", "pitch", "time"}):
        assert DEPICTION.read(DEPICTION.depict(concept, seed=5)) == concept


def test_two_tones_swap_with_their_order_and_nothing_else_does():
    rising, falling = (
        value_of(Concept(count=1, pitch="low", time="early", order=one), 0) for one in ("rising", "falling")
    )
    found = DEPICTION.read(part(rising.flip(1).roll(2000, 1)))
    assert found is not None
    assert found.order == "falling"  # a beep played backwards
    assert not rising.equal(falling)


def test_the_upper_tone_alone_and_both_at_once_are_unreadable():
    at = torch.arange(320) / 4000
    ramp = (torch.arange(320) + 0.5) / 20
    fade = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
    for tones in ((480.0,), (320.0, 480.0)):
        sound = torch.zeros(1, 4000)
        sound[0, 200:520] = sum(0.5 / len(tones) * fade * torch.sin(2 * torch.pi * tone * at) for tone in tones)
        assert DEPICTION.read(part(sound)) is None


def test_noise_of_the_stated_level_changes_nothing():
    made = torch.Generator().manual_seed(0)
    for seed, concept in enumerate(CONCEPTS):
        value = value_of(concept, seed)
        assert DEPICTION.read(part(value + NOISE * torch.randn(value.shape, generator=made))) == concept


@pytest.mark.parametrize("level", [0.15, 0.2, 0.3, 0.5])
def test_louder_noise_makes_it_unreadable_and_never_another_concept(level):
    made = torch.Generator().manual_seed(1)
    for seed, concept in enumerate(CONCEPTS[:24]):
        value = value_of(concept, seed)
        found = DEPICTION.read(part(value + level * torch.randn(value.shape, generator=made)))
        assert found in (None, concept)


def test_noise_alone_is_unreadable():
    made = torch.Generator().manual_seed(2)
    shape = value_of(CONCEPTS[0], 0).shape
    for _ in range(100):
        assert DEPICTION.read(part(torch.rand(shape, generator=made))) is None
        assert DEPICTION.read(part(torch.randn(shape, generator=made))) is None


@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0, float("nan")])
def test_a_constant_is_unreadable(fill):
    assert DEPICTION.read(part(torch.full_like(value_of(CONCEPTS[0], 0), fill))) is None


@pytest.mark.parametrize("value", ["words", b"bytes", torch.zeros(2, 2), torch.zeros((1, 4000), dtype=torch.uint8)])
def test_what_is_no_sound_of_this_world_is_unreadable(value):
    assert DEPICTION.read(part(value)) is None


def test_beeps_that_disagree_are_unreadable():
    low, high, late = (
        value_of(Concept(count=1, pitch=pitch, time=time), 0)
        for pitch, time in (("low", "early"), ("high", "early"), ("low", "late"))
    )
    assert DEPICTION.read(part(low + late)) is None  # both halves
    assert DEPICTION.read(part(low + high.roll(600, 1))) is None  # both pitches, one after the other
    assert DEPICTION.read(part(low + high)) is None  # both at once


def test_a_long_tone_and_a_faint_one_are_unreadable():
    at = torch.arange(4000) / 4000
    assert DEPICTION.read(part(0.5 * torch.sin(2 * torch.pi * 320 * at)[None])) is None
    assert DEPICTION.read(part(0.2 * value_of(CONCEPTS[0], 0))) is None


def decode(file):
    samples, rate = soundfile.read(file, dtype="float32")
    assert rate == 4000
    return torch.from_numpy(samples)[None]


def test_saving_keeps_what_is_shown(tmp_path):
    for number, concept in enumerate(CONCEPTS[:: max(1, len(CONCEPTS) // 12)]):
        file = MODALITY.save(DEPICTION.depict(concept, seed=number), tmp_path / f"part-{number}")
        assert DEPICTION.read(part(decode(file))) == concept


def test_a_block_is_read_back_as_the_same_part():
    one = DEPICTION.depict(CONCEPTS[1])
    assert MODALITY.read(MODALITY.block(one), root=None) == one


def test_a_field_that_nothing_reads_is_refused():
    with pytest.raises(DataError, match="field=caption"):
        MODALITY.read({**MODALITY.block(DEPICTION.depict(CONCEPTS[0])), "caption": "x"}, root=None)


def test_showing_carries_everything_within():
    assert 'src="data:audio/wav;base64,' in MODALITY.show(DEPICTION.depict(CONCEPTS[0]))
