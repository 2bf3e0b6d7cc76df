"""Labels by their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits

from modalign.objectives import Loss, Moderation
from modalign.testing.rows import Row, lay

LABELS = ("violence", "hate")


def of(objective: Moderation, logits: list[list[float]], said: list[list[float]]) -> Loss:
    rows = [Row(rewards=torch.zeros(1, dtype=torch.float64), tokens=(1,)) for _ in logits]
    scores, targets = lay(objective.needs, rows)
    columns = torch.tensor(said, dtype=torch.float64).unbind(-1)
    policy = replace(scores["policy"], rewards={"labels": torch.tensor(logits, dtype=torch.float64)})
    return objective({"policy": policy}, replace(targets, rewards=dict(zip(LABELS, columns, strict=True))))


def test_logits_of_zero_give_log_two_per_label() -> None:
    loss = of(Moderation(dimensions=LABELS), [[0.0, 0.0]], [[1.0, 0.0]])
    assert (loss.sum / loss.count).item() == pytest.approx(math.log(2))
    assert loss.count.item() == 2


def test_it_is_torch_s_binary_cross_entropy_with_weights_of_positives() -> None:
    logits, said = [[1.0, -2.0], [0.3, 4.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    found = of(Moderation(dimensions=LABELS, pos_weights={"hate": 5.0}), logits, said)
    wanted = binary_cross_entropy_with_logits(
        torch.tensor(logits).double(),
        torch.tensor(said).double(),
        pos_weight=torch.tensor([1.0, 5.0]).double(),
        reduction="sum",
    )
    assert found.sum.item() == pytest.approx(wanted.item())


def test_a_label_nobody_gave_or_denied_is_left_out() -> None:
    loss = of(Moderation(dimensions=LABELS), [[2.0, 9.0]], [[1.0, math.nan]])
    assert loss.sum.item() == pytest.approx(math.log1p(math.exp(-2)))
    assert loss.count.item() == 1
    values = {name: (mean.sum.item(), mean.count.item()) for name, mean in loss.metrics.items()}
    assert values["accuracy"] == values["accuracy/violence"] == (1.0, 1.0)
    assert values["accuracy/hate"] == (0.0, 0.0)


def test_a_weight_of_no_label_is_refused() -> None:
    with pytest.raises(ValidationError, match="'hate', which is none of the labels harmful"):
        Moderation(pos_weights={"hate": 2.0})
