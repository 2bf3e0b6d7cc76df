"""The squared error of each sample, in one pass over predictions and targets: what is large in a loss of draws.

b samples.

A pair loss of draws needs four numbers of a pair: the squared errors of chosen and rejected under policy and
reference. All else is arithmetic on them, and objectives do it. So the op reads one prediction and its target, not the
predictions of both roles at once, which would save one read of the target in four: but a role's error could then not be
kept (one number of each draw stands for a whole reference), the reference's prediction would have to live until the
policy has made its own, and an objective would see tensors in place of scores.

Errors are added up in float64, since log-ratios are small differences of large sums. Plain torch makes four tensors of
that type and keeps one for the backward pass; the kernel makes none, and computes the difference again, so that it
keeps the prediction and the target only. What lies beside a sample does not change the order in which it is added up:
equal inputs have equal errors to the last bit.
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from modalign.errors import KernelUnavailable, ShapeError
from modalign.ops.choosing import Impl, takes_kernel

_log = logging.getLogger(__name__)


def squared_error(prediction: Tensor, target: Tensor, *, impl: Impl = "auto") -> Tensor:
    """``sum((prediction - target)^2)`` of each sample, ``b`` in float64.

    prediction, target: ``b ...`` of any types of floats.
    impl: `reference` is plain torch; `kernel` is Triton's, on a GPU or in its interpreter, and has no second
        derivative; `auto` takes the kernel on a GPU.

    >>> squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 6.0]]))
    tensor([25.], dtype=torch.float64)
    """
    run = kernel if takes_kernel("squared_error", impl, prediction, _log) else reference
    return run(prediction, target)


def reference(prediction: Tensor, target: Tensor) -> Tensor:
    """The same in plain torch, on copies in float64."""
    _check(prediction, target)
    return (prediction.double() - target.double()).square().flatten(1).sum(-1)


def kernel(prediction: Tensor, target: Tensor) -> Tensor:
    """The same by Triton kernels: one pass forward, one backward."""
    _check(prediction, target)
    return cast(Tensor, _SquaredError.apply(prediction, target))


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, prediction: Tensor, target: Tensor) -> Tensor:
        from modalign.ops.squared_error_kernel import launch

        prediction, target = _laid_out(prediction), _laid_out(target)
        ctx.save_for_backward(prediction, target)
        return launch(prediction, target)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from modalign.ops.squared_error_kernel import launch_slopes

        if torch.is_grad_enabled():
            raise KernelUnavailable(
                "squared_error(impl='kernel') has no second derivative",
                got="a backward pass with create_graph=True",
                fix="pass impl='reference'",
            )
        prediction, target = cast("tuple[Tensor, Tensor]", ctx.saved_tensors)  # pyright: ignore[reportAttributeAccessIssue]
        needs: tuple[bool, ...] = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]
        return (
            launch_slopes(prediction, target, grad) if needs[0] else None,
            launch_slopes(target, prediction, grad) if needs[1] else None,
        )


def _laid_out(value: Tensor) -> Tensor:
    """Contiguous and at an address as allocators give them: elsewhere Triton compiles a kernel that adds otherwise."""
    value = value.contiguous()
    return value.clone() if value.data_ptr() % 16 else value


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape or not prediction.ndim:
        raise ShapeError(
            f'prediction: expected "b ..." = {tuple(target.shape)}, as its target has', got=tuple(prediction.shape)
        )


def probe() -> dict[str, object]:
    """Arguments to try it on, by name."""
    prediction, target = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return {"prediction": prediction, "target": target}
