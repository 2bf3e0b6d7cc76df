"""Noise and its targets: what the papers mix, gradients in float64, refusals. The kernel is tried in test_kernels.py.

b samples.
"""

from __future__ import annotations

import logging
import os

import pytest
import torch
from torch import Tensor

from modalign.denoising import PREDICTIONS, Prediction, Process
from modalign.errors import ConfigError, KernelUnavailable, ModelError, ShapeError
from modalign.ops.add_noise import add_noise, reference
from modalign.ops.choosing import announce
from modalign.registry import registry


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(sum(shape))
    clean, noise = (torch.randn(shape, generator=made, dtype=torch.float64).to(dtype) for _ in range(2))
    signal, amount = (torch.rand(shape[0], generator=made, dtype=torch.float64) for _ in range(2))
    return clean, noise, signal, amount


@pytest.mark.parametrize(
    ("prediction", "target"),
    [("epsilon", [5.0, 1.0]), ("sample", [2.0, 3.0]), ("v", [2.4, -2.3]), ("flow", [3.0, -2.0])],
)
def test_targets_are_what_the_papers_say(prediction: Prediction, target: list[float]) -> None:
    clean, noise = torch.tensor([[2.0], [3.0]]), torch.tensor([[5.0], [1.0]])
    signal, amount = torch.tensor([0.8, 0.1]), torch.tensor([0.8, 0.8])
    noisy, found = add_noise(clean, noise, signal, amount, prediction=prediction)
    # 0.8 * 2 + 0.8 * 5 = 5.6; 0.1 * 3 + 0.8 * 1 = 1.1
    torch.testing.assert_close(noisy, torch.tensor([[5.6], [1.1]]))
    # v: 0.8 * 5 - 0.8 * 2 = 2.4; 0.1 * 1 - 0.8 * 3 = -2.3. flow: 5 - 2 = 3; 1 - 3 = -2
    torch.testing.assert_close(found, torch.tensor(target)[:, None])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradients_are_those_of_finite_differences(prediction: Prediction) -> None:
    given = [one.requires_grad_() for one in inputs(3, 2, 2)]
    assert torch.autograd.gradcheck(lambda *each: reference(*each, prediction=prediction), given)


@pytest.mark.parametrize(("prediction", "at"), [("epsilon", 1), ("sample", 0)])
def test_a_target_that_is_there_already_is_not_written_again(prediction: Prediction, at: int) -> None:
    given = inputs(2, 3)
    assert add_noise(*given, prediction=prediction)[1] is given[at]


def test_a_process_mixes_by_its_own_coefficients() -> None:
    clean, noise, _, _ = inputs(3, 2)
    process = Process(prediction="v", path="cosine")
    time = torch.tensor([0.0, 1 / 3, 1.0], dtype=torch.float64)
    noisy, target = process.noised(clean, noise, time)
    # cos and sin of 0, 30 and 90 degrees
    signal, amount = torch.tensor([[1.0, 3**0.5 / 2, 0.0], [0.0, 0.5, 1.0]], dtype=torch.float64)[:, :, None]
    torch.testing.assert_close(noisy, signal * clean + amount * noise)
    torch.testing.assert_close(target, signal * noise - amount * clean)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="there the kernel runs")
def test_a_kernel_that_cannot_run_raises() -> None:
    with pytest.raises(KernelUnavailable, match=r"add_noise.*needs (a GPU|Triton).*impl='reference'"):
        add_noise(*inputs(1, 2), prediction="v", impl="kernel")


def test_auto_takes_plain_torch_on_a_cpu_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="modalign.ops.add_noise"):
        for _ in range(2):
            add_noise(*inputs(1, 2), prediction="v")
    assert [record.getMessage() for record in caplog.records] == ["add_noise: impl='auto' takes 'reference'"]


def test_the_registry_knows_the_op_and_its_twin() -> None:
    assert registry.op("add_noise") is add_noise
    assert registry.entries("ops")["add_noise"].declarations["reference"] == f"{reference.__module__}:reference"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"impl": "fast"}, ConfigError, "add_noise has no implementation 'fast'"),
        ({"prediction": "score"}, ConfigError, "no target 'score'; found: epsilon, v, sample, flow"),
        ({"noise": torch.zeros(2, 4)}, ShapeError, r"noise: expected \"b \.\.\.\" = \(2, 3\).*found: \(2, 4\)"),
        ({"signal": torch.zeros(3)}, ShapeError, r"signal: expected \"b\" = \(2,\); found: \(3,\)"),
        ({"amount": torch.zeros(())}, ShapeError, "amount"),
        ({"noise": torch.zeros(2, 3).half()}, ModelError, r"one type; found: torch\.float32 and torch\.float16"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    clean, noise, signal, amount = inputs(2, 3, dtype=torch.float32)
    given = {"clean": clean, "noise": noise, "signal": signal, "amount": amount, "prediction": "v"} | change
    with pytest.raises(error, match=says):
        add_noise(**given)  # pyright: ignore[reportArgumentType]
