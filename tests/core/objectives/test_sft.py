"""SFT by its arithmetic."""

from __future__ import annotations

import pytest
import torch

from modalign.objectives import SFT
from modalign.testing.rows import Row, lay


def rows(*pairs: tuple[float, int]) -> list[Row]:
    return [Row(logps={"policy": torch.tensor([logp], dtype=torch.float64)}, tokens=(count,)) for logp, count in pairs]


def test_tokens_are_averaged_over_all_of_them_not_by_response() -> None:
    loss = SFT()(*lay(SFT().needs, rows((-6.0, 2), (-2.0, 6))))
    assert (loss.sum.item(), loss.count.item()) == (8.0, 8.0)
    assert loss.mean.item() == 1.0  # by response it would be (3 + 1/3) / 2
    assert (loss.metrics["logps/chosen"].sum / loss.metrics["logps/chosen"].count).item() == -4.0


def test_draws_are_averaged_over_responses() -> None:
    scores, targets = lay(SFT().needs, rows((-6.0, 2), (-2.0, 6)), kind="draw")
    loss = SFT()(scores, targets)
    assert scores["policy"].counts.tolist() == [0, 0]
    assert (loss.sum.item(), loss.count.item()) == (8.0, 2.0)
    assert loss.mean.item() == 4.0  # whatever the number of draws


def test_an_equal_likelihood_for_every_token_gives_the_log_of_the_vocabulary() -> None:
    uniform = -torch.tensor(100.0, dtype=torch.float64).log().item()
    loss = SFT()(*lay(SFT().needs, rows((3 * uniform, 3), (5 * uniform, 5))))
    assert loss.mean.item() == pytest.approx(-uniform, rel=1e-14)
