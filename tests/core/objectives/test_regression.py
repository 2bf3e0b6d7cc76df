"""Regression on scores by its closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import huber_loss

from modalign.objectives import Loss, Regression
from modalign.testing.rows import Row, lay


def of(objective: Regression, numbers: list[float], said: list[float]) -> Loss:
    rows = [Row(rewards=torch.tensor([one], dtype=torch.float64), tokens=(1,)) for one in numbers]
    scores, targets = lay(objective.needs, rows)
    return objective(scores, replace(targets, rewards={"reward": torch.tensor(said, dtype=torch.float64)}))


def test_the_loss_is_the_square_of_the_error() -> None:
    loss = of(Regression(), [1.0, 3.0, 7.0], [1.5, 0.0, math.nan])
    assert loss.sum.item() == 9.25  # 0.5^2 + 3^2
    assert loss.count.item() == 2
    assert (loss.metrics["mae"].sum / loss.metrics["mae"].count).item() == 1.75


def test_huber_s_loss_is_torch_s() -> None:
    numbers, said = [0.1, -2.0, 5.0], [0.0, 0.0, 0.0]
    wanted = huber_loss(torch.tensor(numbers).double(), torch.zeros(3).double(), delta=0.7, reduction="sum")
    assert of(Regression(huber_delta=0.7), numbers, said).sum.item() == pytest.approx(wanted.item())


def test_a_huber_delta_without_end_is_half_the_square() -> None:
    numbers, said = [3.0, -1.0], [0.0, 1.0]
    assert of(Regression(huber_delta=1e9), numbers, said).sum.item() == pytest.approx(
        of(Regression(), numbers, said).sum.item() / 2
    )


def test_scores_need_a_head_with_a_bias_and_one_may_say_otherwise() -> None:
    assert Regression().needs.spec("reward").options["bias"] is True
    assert Regression(head_options={"bias": False}).needs.spec("reward").options["bias"] is False
