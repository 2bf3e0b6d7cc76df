"""What reads actions: each step by its dimensions, in units of their ranges, and by its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modalign.errors import CheckpointError, ConfigError, DataError, ModelError
from modalign.roles import Content
from modalign_action import ActionSpace
from modalign_action.encoder import ActionEncoder

SPACE = ActionSpace(steps=4, low=(0.0, -1.0), high=(1.0, 1.0))
TALL = ActionSpace(steps=4, low=(0.0, -10.0), high=(10.0, 10.0))  #: the same in units ten times as small


def embedded(encoder: ActionEncoder, table: torch.Tensor) -> torch.Tensor:
    medium = encoder.prepare(Content(modality="action", tensor=table))
    with torch.no_grad():
        (found,) = encoder([medium])
    assert found.shape == (medium.cost, encoder.width)
    return found


def test_a_step_is_known_by_its_place_too():
    encoder = ActionEncoder(SPACE, width=8)
    one, other = embedded(encoder, torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert not torch.allclose(one, other, atol=1e-4)


def test_actions_are_read_in_units_of_their_ranges():
    table = torch.rand(3, 2)
    assert torch.allclose(embedded(ActionEncoder(SPACE), table), embedded(ActionEncoder(TALL), 10 * table), atol=1e-5)


def test_a_history_may_be_of_any_length_and_of_no_other_dimensions():
    encoder = ActionEncoder(SPACE, width=8)
    assert len(embedded(encoder, torch.rand(9, 2))) == 9
    with pytest.raises(DataError, match="have 2 dimensions"):
        embedded(encoder, torch.rand(4, 3))
    with pytest.raises(ModelError, match="reads actions"):
        embedded(encoder, torch.rand(4))


def test_without_weights_it_is_new_and_the_same_each_time(tmp_path: Path):
    SPACE.save(tmp_path / "fitted")
    one, again, other = (
        ActionEncoder.load(str(tmp_path / "fitted"), width=8, seed=seed).state_dict()["read.0.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_saved_one_keeps_its_width_and_its_weights(tmp_path: Path):
    made = ActionEncoder(SPACE, width=8, seed=3)
    made.save(tmp_path / "saved")
    again = ActionEncoder.load(str(tmp_path / "saved"), width=8)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in made.state_dict().items())
    with pytest.raises(ConfigError, match="another width"):
        ActionEncoder.load(str(tmp_path / "saved"), width=16)
    (tmp_path / "saved" / "encoder.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ActionEncoder.load(str(tmp_path / "saved"))
