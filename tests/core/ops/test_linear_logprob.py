"""The chunked head against plain torch: values, gradients in float64, memory kept, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modalign.errors import ConfigError, KernelUnavailable, ModelError, ShapeError
from modalign.ops.linear_logprob import _announce, chunked, linear_logprob, reference

CASES = [
    {"bias": bias, "scale": scale, "softcap": softcap}
    for bias, scale, softcap in ((False, 1.0, None), (True, 0.7, None), (False, 1.3, 2.0), (True, 0.5, 1.5))
]


def inputs(
    n: int = 7, d: int = 5, v: int = 11, dtype: torch.dtype = torch.float64, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(n + d + v)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    shift = torch.randn(v, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    target = torch.randint(v, (n,), generator=generator)
    return hidden, weight, target, shift if bias else None


def saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes autograd holds between the passes, the inputs' storages aside."""
    seen: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = run()
    del result
    return sum(seen.values())


def test_equal_logits_give_log_of_the_vocabulary() -> None:
    found = linear_logprob(torch.zeros(3, 4), torch.zeros(8, 4), torch.tensor([0, 3, 7]))
    torch.testing.assert_close(found, torch.full((3,), -2.0794415))  # -log 8


@pytest.mark.parametrize("case", CASES)
def test_the_probabilities_of_all_targets_add_up_to_one(case: dict[str, object]) -> None:
    hidden, weight, _, bias = inputs(n=1, bias=bool(case["bias"]))
    every = torch.arange(weight.shape[0])
    settings = {"scale": case["scale"], "softcap": case["softcap"]}
    found = chunked(hidden.expand(len(every), -1), weight, every, bias=bias, chunk=4, **settings)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found.exp().sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("keep", [0, 1 << 20])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_equal_plain_torch_in_value_and_gradient(case: dict[str, object], keep: int, chunk: int) -> None:
    hidden, weight, target, bias = inputs(bias=bool(case["bias"]))
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    settings = {"scale": case["scale"], "softcap": case["softcap"]}
    upstream = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)
    found = chunked(hidden, weight, target, bias=bias, chunk=chunk, keep=keep, **settings)  # pyright: ignore[reportArgumentType]
    wanted = reference(hidden, weight, target, bias=bias, **settings)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(wanted, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("trains", ["all", "hidden", "weight", "bias"])
@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_gradients_are_those_of_finite_differences(case: dict[str, object], trains: str, keep: int) -> None:
    hidden, weight, target, bias = inputs(n=4, bias=bool(case["bias"]))
    if trains == "bias" and bias is None:
        pytest.skip("no bias in this case")
    leaves = {"hidden": hidden, "weight": weight} | ({} if bias is None else {"bias": bias})
    for name, leaf in leaves.items():
        leaf.requires_grad_(trains in ("all", name))
    settings = {"scale": case["scale"], "softcap": case["softcap"]}

    def run(states: Tensor, head: Tensor, shift: Tensor | None = None) -> Tensor:
        return chunked(states, head, target, bias=shift, chunk=3, keep=keep, **settings)  # pyright: ignore[reportArgumentType]

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


def test_a_frozen_head_keeps_one_vector_per_row_and_no_logits() -> None:
    hidden, weight, target, _ = inputs(n=64, d=8, v=512, dtype=torch.float32)
    weight.requires_grad_(False)
    # U = d logp / d hidden: 64 rows of 8 float32 = 2048 bytes; the logits would be 131072
    assert saved_bytes(lambda: chunked(hidden, weight, target, chunk=16)) == 64 * 8 * 4


def test_a_trained_head_keeps_logits_only_within_its_budget() -> None:
    hidden, weight, target, _ = inputs(n=64, d=8, v=512, dtype=torch.float32)
    logits = 64 * 512 * 4
    assert saved_bytes(lambda: chunked(hidden, weight, target, keep=logits)) >= logits
    # without them: states 2048, weight 16384, targets 512, partitions 256
    assert saved_bytes(lambda: chunked(hidden, weight, target, keep=logits - 1)) == 2048 + 16384 + 512 + 256


@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_nothing_is_kept_without_gradients(impl: str) -> None:
    hidden, weight, target, bias = inputs()

    def run() -> Tensor:
        with torch.no_grad():
            return linear_logprob(hidden, weight, target, bias=bias, impl=impl)  # pyright: ignore[reportArgumentType]

    assert saved_bytes(run) == 0
    assert not run().requires_grad


@pytest.mark.parametrize("train_head", [True, False])
@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_bf16_weights_answer_and_accumulate_in_float32(train_head: bool, keep: int) -> None:
    hidden, weight, target, bias = inputs(n=96, d=16, v=64, dtype=torch.bfloat16)
    assert bias is not None
    for leaf in (weight, bias):
        leaf.requires_grad_(train_head)
    leaves = [hidden, weight, bias] if train_head else [hidden]
    exact = [leaf.detach().double().requires_grad_(leaf.requires_grad) for leaf in (hidden, weight, bias)]
    found = chunked(hidden, weight, target, bias=bias, chunk=5, keep=keep)
    wanted = reference(exact[0], exact[1], target, bias=exact[2])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=3e-2, rtol=1e-2)  # logits are rounded to bf16
    grads = torch.autograd.grad(found.sum(), leaves)
    for one, other in zip(grads, torch.autograd.grad(wanted.sum(), exact[: len(leaves)]), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).norm() < 1e-2 * other.norm()


def test_an_almost_certain_bf16_token_keeps_its_small_gradient() -> None:
    # logits 12 and 0: d logp / d hidden = (1 - p)(w0 - w1) with 1 - p = 6.1e-6, far under bf16's 2^-9 of w0
    weight = torch.tensor([[3.0, 1.0], [0.0, 1.0]], dtype=torch.bfloat16)
    hidden = torch.tensor([[4.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    (grad,) = torch.autograd.grad(chunked(hidden, weight, torch.tensor([0])).sum(), hidden)
    left = 1 - torch.sigmoid(torch.tensor(12.0, dtype=torch.float64)).item()
    wanted = torch.tensor([[3.0 * left, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("train_head", [True, False])
def test_autocast_runs_the_matmul_in_bf16_and_gives_gradients_in_the_parameters_type(train_head: bool) -> None:
    hidden, weight, target, bias = inputs(n=32, d=16, v=64, dtype=torch.float32)
    assert bias is not None
    for leaf in (weight, bias):
        leaf.requires_grad_(train_head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_logprob(hidden, weight, target, bias=bias, chunk=8, keep=0)
        half = linear_logprob(hidden.bfloat16(), weight, target, bias=bias, chunk=8, keep=0)  # states of a bf16 body
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, half)
    torch.testing.assert_close(found, reference(hidden, weight, target, bias=bias), atol=5e-2, rtol=1e-2)
    assert not torch.equal(found, linear_logprob(hidden, weight, target, bias=bias))  # the matmul was in bf16
    leaves = [hidden, weight, bias] if train_head else [hidden]
    wanted = torch.autograd.grad(reference(hidden, weight, target, bias=bias).sum(), leaves)
    for one, other in zip(torch.autograd.grad(found.sum(), leaves), wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 1e-2 * other.norm()


@pytest.mark.parametrize("train_head", [True, False])
def test_no_rows_give_no_values_and_gradients_of_zero(train_head: bool) -> None:
    hidden, weight, target, bias = inputs(n=0)
    assert bias is not None
    for leaf in (weight, bias):
        leaf.requires_grad_(train_head)
    found = linear_logprob(hidden, weight, target, bias=bias)
    assert found.shape == (0,)
    found.sum().backward()
    assert hidden.grad is not None
    if train_head:
        assert weight.grad is not None
        assert bias.grad is not None
        assert not weight.grad.any()
        assert not bias.grad.any()


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    found = linear_logprob(hidden, weight, torch.tensor([1, 1]))
    torch.testing.assert_close(found, torch.tensor([-2e4, 0.0]))  # logits (1e4, -1e4, 0) and their negatives
    found.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_one_state_may_predict_many_tokens() -> None:
    hidden, weight, _, _ = inputs(n=1)
    rows = torch.zeros(3, dtype=torch.long)
    found = chunked(hidden[rows], weight, torch.tensor([1, 1, 4]), chunk=2)
    (grad,) = torch.autograd.grad(found[:2].sum(), hidden)
    (single,) = torch.autograd.grad(reference(hidden, weight, torch.tensor([1])).sum(), hidden)
    torch.testing.assert_close(grad, 2 * single)  # two equal tokens pull twice as hard


def test_a_second_derivative_is_refused_and_the_twin_has_it() -> None:
    hidden, weight, target, _ = inputs()
    with pytest.raises(KernelUnavailable, match=r"no second derivative.*impl='reference'"):
        torch.autograd.grad(linear_logprob(hidden, weight, target).sum(), hidden, create_graph=True)
    (grad,) = torch.autograd.grad(
        linear_logprob(hidden, weight, target, impl="reference").sum(), hidden, create_graph=True
    )
    grad.square().sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"impl": "kernel"}, ConfigError, "no implementation 'kernel'"),
        ({"chunk": 0}, ConfigError, "at least 1"),
        ({"hidden": torch.zeros(7, 6)}, ShapeError, r"hidden: expected \"n d\" = \(7, 5\); found: \(7, 6\)"),
        ({"hidden": torch.zeros(2, 7, 5)}, ShapeError, "hidden"),
        ({"target": torch.zeros(7, 1, dtype=torch.long)}, ShapeError, "target"),
        ({"bias": torch.zeros(5)}, ShapeError, "bias"),
        ({"hidden": torch.zeros(7, 5, dtype=torch.float16)}, ModelError, "one type"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    hidden, weight, target, bias = inputs(dtype=torch.float32)
    arguments = {"hidden": hidden, "weight": weight, "target": target, "bias": bias} | change
    with pytest.raises(error, match=says):
        linear_logprob(**arguments)  # pyright: ignore[reportArgumentType]


def test_auto_says_once_what_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    hidden, weight, target, _ = inputs()
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="modalign.ops.linear_logprob"):
        linear_logprob(hidden, weight, target)
        linear_logprob(hidden, weight, target)
    assert [record.getMessage() for record in caplog.records] == ["linear_logprob: impl='auto' takes 'chunked'"]
