"""Generators go on exactly where they were captured."""

import logging
import random

import numpy as np
import pytest
import torch

from modalign.errors import CheckpointError
from modalign.training.storage.checkpoint import load_checkpoint, save_checkpoint
from modalign.training.storage.rng import rng_state, set_rng_state
from modalign.training.storage.state import TrainState


def seed(python: int, numpy: int, cpu: int) -> None:
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(cpu)


def numbers() -> list[float]:
    return [
        *(random.random() for _ in range(3)),
        random.gauss(0, 1),
        *np.random.rand(3).tolist(),
        float(np.random.randn()),
        *torch.rand(3).tolist(),
        *torch.randn(17).tolist(),
    ]


@pytest.fixture(autouse=True)
def own_generators():
    before = rng_state()
    yield
    set_rng_state(before)


@pytest.mark.parametrize("drawn", range(4))
def test_what_follows_is_the_same_after_setting(drawn):
    seed(1, 2, 3)
    for _ in range(drawn):  # an odd number leaves the second Gaussian of a pair waiting
        _ = (random.gauss(0, 1), np.random.randn(), torch.randn(1))
    captured = rng_state()
    expected = numbers()
    numbers()
    set_rng_state(captured)
    assert numbers() == expected


def test_a_checkpoint_carries_them(tmp_path):
    state = TrainState(step=1, position=1, tensors={}, rng=rng_state())
    expected = numbers()
    set_rng_state(load_checkpoint(save_checkpoint(tmp_path, state)).rng)
    assert numbers() == expected


def test_capturing_changes_nothing():
    seed(5, 5, 5)
    expected = numbers()
    seed(5, 5, 5)
    rng_state()
    assert numbers() == expected


def test_states_are_bytes_of_one_length_whatever_they_hold():
    fresh = rng_state()
    numbers()
    random.gauss(0, 1)
    later = rng_state()
    assert {name: state.shape for name, state in fresh.items()} == {name: state.shape for name, state in later.items()}
    assert {state.dtype for state in fresh.values()} == {torch.uint8}


def test_each_rank_takes_its_own_row():
    states, expected = [], []
    for number in range(2):
        seed(number, number, number)
        states.append(rng_state())
        expected.append(numbers())
    gathered = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    for rank in (1, 0):
        set_rng_state(gathered, rank=rank)
        assert numbers() == expected[rank]


def test_a_rank_without_a_state_is_refused_and_nothing_is_set():
    expected = rng_state()
    with pytest.raises(CheckpointError, match="for rank 2"):
        set_rng_state({name: torch.stack([state, state]) for name, state in expected.items()}, rank=2)
    assert all(torch.equal(state, expected[name]) for name, state in rng_state().items())


@pytest.mark.parametrize("name", ["python", "numpy", "torch"])
def test_a_missing_generator_is_named(name):
    states = rng_state()
    del states[name]
    with pytest.raises(CheckpointError, match=name):
        set_rng_state(states)


def test_a_state_of_another_length_is_refused():
    with pytest.raises(CheckpointError, match="7 bytes"):
        set_rng_state(rng_state() | {"python": torch.zeros(7, dtype=torch.uint8)})


def test_another_kind_of_device_is_said_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        set_rng_state(rng_state())
        assert not caplog.records
        set_rng_state(rng_state() | {"abacus": torch.zeros(16, dtype=torch.uint8)})
    assert "other random numbers on abacus" in caplog.text


@pytest.mark.gpu
def test_the_accelerator_goes_on_where_it_was():
    device = torch.accelerator.current_accelerator()
    torch.rand(3, device=device)  # the device is in use from here on
    captured = rng_state()
    expected = torch.rand(100, device=device)
    set_rng_state(captured)
    assert torch.equal(torch.rand(100, device=device), expected)
