"""The linear head reads the state at a response's last token, and nothing else."""

from __future__ import annotations

import pytest
import torch

from modalign.batch import Batch, Targets
from modalign.heads import LinearHead
from modalign.layout import Layout, Span


def batch(ends: list[tuple[int, int]], *, rows: int = 2, width: int = 5) -> Batch:
    none = torch.zeros(0, dtype=torch.long)
    return Batch(
        tokens=torch.zeros(rows, width, dtype=torch.long),
        layout=Layout(tuple(Span(row=row, start=0, stop=width) for row in range(rows)), rows=rows, width=width),
        segments=(),
        units={},
        ends=torch.tensor(ends, dtype=torch.long).reshape(-1, 2),
        targets=Targets(pairs=none.reshape(0, 2), own=none, weights=torch.zeros(0), group=none),
    )


def test_a_reward_is_linear_in_the_state_at_the_last_token() -> None:
    head = LinearHead(4, dimensions=("helpfulness", "harmlessness"), bias=True)
    torch.nn.init.normal_(head.score.bias)
    states = torch.randn(2, 5, 4)
    rewards = head(states, batch([(0, 2), (0, 4), (1, 1)]))
    expected = torch.stack([states[0, 2], states[0, 4], states[1, 1]]) @ head.score.weight.T + head.score.bias
    assert head.dimensions == ("helpfulness", "harmlessness")
    torch.testing.assert_close(rewards, expected)


def test_other_tokens_have_no_gradient_and_may_hold_nan() -> None:
    states = torch.randn(2, 5, 4)
    states[1, 2:] = torch.nan
    states.requires_grad_()
    LinearHead(4)(states, batch([(0, 3), (1, 1)])).sum().backward()
    assert states.grad is not None
    assert states.grad.abs().sum(-1).nonzero().tolist() == [[0, 3], [1, 1]]


@pytest.mark.parametrize("autocast", [False, True])
def test_numbers_are_float32_whatever_the_states_are(autocast: bool) -> None:
    head = LinearHead(64)
    states = torch.randn(1, 5, 64, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        rewards = head(states, batch([(0, 4)], rows=1))
    assert rewards.dtype == torch.float32
    torch.testing.assert_close(rewards, states[:, 4].float() @ head.score.weight.T, rtol=0, atol=1e-6)


def test_weights_start_small_and_a_bias_at_zero() -> None:
    torch.manual_seed(0)
    head = LinearHead(4096, dimensions=("a", "b"), bias=True)
    assert head.score.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert head.score.bias.tolist() == [0, 0]
    assert LinearHead(4).score.bias is None


def test_no_response_is_no_number() -> None:
    assert LinearHead(4)(torch.randn(2, 5, 4), batch([])).shape == (0, 1)
