"""What the numbers of each kind of head are."""

from __future__ import annotations

import pytest
import torch

from modalign.errors import ConfigError
from modalign.heads import CosineHead, GaussianHead, LabelHead, OrdinalHead


def test_a_gaussian_head_gives_means_and_then_log_variances_within_their_ends() -> None:
    head = GaussianHead(4, dimensions=("a", "b"))
    state = torch.eye(4) * 1e4
    with torch.no_grad():
        head.score.weight[2:].copy_(torch.tensor([[1.0, -1.0, 0.0, 0.5], [0.0, 0.0, 1e-4, -1e-4]]))
    means, logs = head.numbers(state).chunk(2, dim=-1)
    torch.testing.assert_close(means, state @ head.score.weight[:2].T)
    assert logs.min() >= -10
    assert logs.max() <= 10.001  # the softplus of -20 on top
    # in between it is all but the number itself: log(1 + exp(-9)) = 0.0001
    assert logs[2:, 1].tolist() == pytest.approx([1.0, -1.0], abs=2e-4)


def test_a_log_variance_at_its_end_still_has_a_gradient() -> None:
    head = GaussianHead(1, bias=False)
    with torch.no_grad():
        head.score.weight[1] = 14.0
    head.numbers(torch.ones(1, 1))[:, 1].sum().backward()
    assert head.score.weight.grad is not None
    assert head.score.weight.grad[1].item() == pytest.approx(0.018, abs=0.001)  # sigmoid(10 - 14)


def test_a_gaussian_head_answers_with_means_and_variances() -> None:
    head = GaussianHead(2, dimensions=("a", "b"))
    found = head.answers(torch.tensor([[1.0, 2.0, 0.0, 3.0]]))
    assert list(found) == ["a", "b", "a/variance", "b/variance"]
    assert [value.item() for value in found.values()] == pytest.approx([1.0, 2.0, 1.0, 20.0855], rel=1e-4)


def test_a_cosine_is_bounded_by_the_scale_and_does_not_see_the_length_of_a_state() -> None:
    head = CosineHead(8, dimensions=("a", "b"), projection=4)
    state = torch.randn(5, 8)
    numbers = head.numbers(state)
    assert numbers.abs().max() <= 1 / 0.07 + 1e-3
    torch.testing.assert_close(head.numbers(3 * state), numbers)
    with torch.no_grad():
        head.log_scale.fill_(20.0)  # exp(20) is cut to 100
        head.direction[0] = head.project(state[0])
    assert head.numbers(state)[0, 0].item() == pytest.approx(100, rel=1e-5)


def test_a_state_of_zeros_has_no_direction_and_a_finite_gradient() -> None:
    head = CosineHead(4, projection=3)
    head.numbers(torch.zeros(1, 4)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


def test_labels_start_with_a_bias_of_zero_and_answer_with_probabilities() -> None:
    head = LabelHead(4, dimensions=("x", "y"))
    assert head.score.bias.tolist() == [0, 0]
    found = head.answers(torch.tensor([[0.0, 100.0]]))
    assert {name: value.item() for name, value in found.items()} == {"x": 0.5, "y": 1.0}


def test_an_ordinal_head_starts_at_its_cut_points_and_keeps_them_rising() -> None:
    head = OrdinalHead(4, dimensions=("a", "b"), cuts=(-1.0, 0.5, 3.0))
    torch.testing.assert_close(head.cuts, torch.tensor([[-1.0, 0.5, 3.0]] * 2))
    with torch.no_grad():
        head.gaps.fill_(-5.0)  # type: ignore[union-attr]
    assert (head.cuts.diff() > 0).all()
    state = torch.randn(3, 4)
    latent = state @ head.score.weight.T
    numbers = head.numbers(state).unflatten(-1, (2, 3))
    torch.testing.assert_close(numbers, latent[..., None] - head.cuts)


def test_an_ordinal_head_answers_with_the_expected_rate() -> None:
    head = OrdinalHead(4, dimensions=("a",), cuts=(0.0, 1.0))
    # of three rates: sigmoid(0) and sigmoid(-1) to be above 0 and 1, so 0.5, 0.231 and 0.269
    expected = head.answers(torch.tensor([[0.0, -1.0]]))["a"].item()
    assert expected == pytest.approx(0.231059 * 1 + 0.268941 * 2, rel=1e-5)


def test_two_rates_have_one_cut_point() -> None:
    head = OrdinalHead(4, cuts=(0.5,))
    assert head.dimensions == ("reward>0",)
    assert head.cuts.tolist() == [[0.5]]


@pytest.mark.parametrize("cuts", [(), (1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_cut_points_rise(cuts: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="cut points rise"):
        OrdinalHead(4, cuts=cuts)
