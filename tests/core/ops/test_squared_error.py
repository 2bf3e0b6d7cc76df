"""Squared errors: sums that keep their last digits, gradients in float64, refusals. The kernel is in test_kernels.py.

b samples.
"""

from __future__ import annotations

import logging
import math
import os

import pytest
import torch
from torch import Tensor

from modalign.errors import ConfigError, KernelUnavailable, ShapeError
from modalign.ops.choosing import announce
from modalign.ops.squared_error import reference, squared_error
from modalign.registry import registry


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(sum(shape))
    one, other = (torch.randn(shape, generator=made, dtype=torch.float64).to(dtype) for _ in range(2))
    return one, other


def test_an_error_is_the_sum_over_all_of_a_sample() -> None:
    prediction, target = torch.tensor([[[1.0], [2.0]], [[0.0], [0.0]]]), torch.tensor([[[4.0], [6.0]], [[0.5], [0.0]]])
    # (1 - 4)^2 + (2 - 6)^2 = 25; (0 - 0.5)^2 = 0.25
    assert squared_error(prediction, target).tolist() == [25.0, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_sum_keeps_the_digits_that_a_log_ratio_is_made_of(dtype: torch.dtype) -> None:
    prediction, target = inputs(1, 200_000, dtype=dtype)
    exact = math.fsum((one - other) ** 2 for one, other in zip(prediction[0].tolist(), target[0].tolist(), strict=True))
    found = squared_error(prediction, target).item()
    # 2e5 roundings of 2^-53 in a sum of pairs; in float32 the sum alone is off by 1e-7
    assert abs(found / exact - 1) < 1e-13
    assert abs((prediction.float() - target.float()).square().sum().item() / exact - 1) > 1e-10


def test_a_difference_that_float32_cannot_hold_is_not_lost() -> None:
    prediction, target = torch.tensor([[2.0**24]]), torch.tensor([[-1.0]])
    assert squared_error(prediction, target).item() == (2.0**24 + 1) ** 2  # 16777217 is no float32


def test_gradients_are_those_of_finite_differences() -> None:
    prediction, target = (one.requires_grad_() for one in inputs(2, 3, 2, dtype=torch.float64))
    assert torch.autograd.gradcheck(reference, (prediction, target))
    assert torch.autograd.gradgradcheck(reference, (prediction, target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_is_twice_the_difference_rounded_once(dtype: torch.dtype) -> None:
    prediction, target = inputs(2, 5, dtype=dtype)
    prediction.requires_grad_()
    upstream = torch.tensor([0.3, -2.0], dtype=torch.float64)
    (grad,) = torch.autograd.grad(squared_error(prediction, target), prediction, upstream)
    wanted = 2 * upstream[:, None] * (prediction.detach().double() - target.double())
    assert grad.equal(wanted.to(dtype))


def test_no_samples_and_samples_of_nothing_have_no_error() -> None:
    assert squared_error(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert squared_error(torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [0.0, 0.0]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="there the kernel runs")
def test_a_kernel_that_cannot_run_raises() -> None:
    with pytest.raises(KernelUnavailable, match=r"squared_error.*needs (a GPU|Triton).*impl='reference'"):
        squared_error(*inputs(1, 2), impl="kernel")


def test_auto_takes_plain_torch_on_a_cpu_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="modalign.ops.squared_error"):
        for _ in range(2):
            squared_error(*inputs(1, 2))
    assert [record.getMessage() for record in caplog.records] == ["squared_error: impl='auto' takes 'reference'"]


def test_the_registry_knows_the_op_and_its_twin() -> None:
    assert registry.op("squared_error") is squared_error
    assert registry.entries("ops")["squared_error"].declarations["reference"] == f"{reference.__module__}:reference"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"impl": "fast"}, ConfigError, "squared_error has no implementation 'fast'"),
        ({"prediction": torch.zeros(2, 1)}, ShapeError, r"expected \"b \.\.\.\" = \(2, 3\).*found: \(2, 1\)"),
        ({"prediction": torch.zeros(()), "target": torch.zeros(())}, ShapeError, r"prediction: expected \"b \.\.\.\""),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    prediction, target = inputs(2, 3)
    with pytest.raises(error, match=says):
        squared_error(**({"prediction": prediction, "target": target} | change))  # pyright: ignore[reportArgumentType]
