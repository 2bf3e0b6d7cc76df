"""The oracle world in clips: read back exactly, through noise and its file format, and never guessed."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from einops import rearrange

from modalign.content import Part
from modalign.world import Concept, concepts
from modalign_video.modality import VideoModality
from modalign_video.world import VideoDepiction

DEPICTION, MODALITY = VideoDepiction(), VideoModality()
CONCEPTS = list(concepts(DEPICTION.attributes))
NOISE = 0.1  # standard deviation that the depiction states


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def part(value):
    return Part(modality="video", value=value)


def value_of(concept, seed):
    value = DEPICTION.depict(concept, seed=seed).value
    assert isinstance(value, torch.Tensor)
    return value


def test_every_concept_is_read_back_at_many_seeds():
    for seed in range(30):
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
    for _ in range(60):
        assert DEPICTION.read(part(torch.rand(shape, generator=made))) is None
        assert DEPICTION.read(part(torch.randn(shape, generator=made))) is None


@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0, float("nan")])
def test_a_constant_is_unreadable(fill):
    assert DEPICTION.read(part(torch.full_like(value_of(CONCEPTS[0], 0), fill))) is None


@pytest.mark.parametrize(
    "value", ["words", b"bytes", torch.zeros(2, 2), torch.zeros((8, 3, 16, 16), dtype=torch.uint8)]
)
def test_what_is_no_clip_of_this_world_is_unreadable(value):
    assert DEPICTION.read(part(value)) is None


def test_a_disc_that_stands_still_moves_askew_or_changes_colour_is_unreadable():
    right = value_of(Concept(colour="red", motion="right"), 0)
    still = right[:1].repeat(8, 1, 1, 1)
    askew = torch.stack([frame.roll(number - 3, 1) for number, frame in enumerate(right)])
    other = right.flip(1)  # red frames turn blue
    assert DEPICTION.read(part(still)) is None
    assert DEPICTION.read(part(askew)) is None
    assert DEPICTION.read(part(torch.cat([right[:4], other[4:]]))) is None


def test_two_frames_may_be_lost_but_not_three():
    clip = value_of(Concept(colour="green", motion="up"), 0).clone()
    clip[[2, 5]] = 0.08
    assert DEPICTION.read(part(clip)) == Concept(colour="green", motion="up")
    clip[6] = 0.08
    assert DEPICTION.read(part(clip)) is None


def decode(file):
    with av.open(io.BytesIO(file.read_bytes()), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> t c h w").float() / 255


def test_saving_keeps_what_is_shown(tmp_path):
    for number, concept in enumerate(CONCEPTS[:: max(1, len(CONCEPTS) // 12)]):
        file = MODALITY.save(DEPICTION.depict(concept, seed=number), tmp_path / f"part-{number}")
        assert DEPICTION.read(part(decode(file))) == concept


def test_a_block_is_read_back_as_the_same_part():
    one = DEPICTION.depict(CONCEPTS[1])
    assert MODALITY.read(MODALITY.block(one), root=None) == one


def test_showing_carries_everything_within():
    assert 'src="data:video/mp4;base64,' in MODALITY.show(DEPICTION.depict(CONCEPTS[0]))
