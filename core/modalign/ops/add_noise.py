"""Clean latents to noisy ones and to what a network should predict of them, in one pass over latents and noise.

b samples.

Both are sums of the same two tensors, with a pair of numbers for each sample: the kernel reads each value once and
writes both. What is one of the two itself (the noise, what is clean) is not written again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from modalign.errors import ConfigError, ModelError, ShapeError
from modalign.ops.choosing import Impl, takes_kernel

if TYPE_CHECKING:
    from modalign.denoising import Prediction

_log = logging.getLogger(__name__)


def add_noise(
    clean: Tensor,
    noise: Tensor,
    signal: Tensor,
    amount: Tensor,
    *,
    prediction: Prediction,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Noisy latents ``signal * clean + amount * noise``, and the target, each ``b ...``.

    The target is `epsilon`, the noise; `sample`, what is clean; `v`, ``signal * noise - amount * clean``; `flow`,
    ``noise - clean``: `modalign.denoising.Process` has the sources.

    clean, noise: ``b ...`` of one type.
    signal, amount: ``b`` what they are multiplied by.
    impl: `reference` is plain torch; `kernel` is Triton's, on a GPU or in its interpreter; `auto` takes the kernel on a
        GPU. Coefficients have no derivative in the kernel.

    >>> clean, noise, half = torch.tensor([[2.0]]), torch.tensor([[4.0]]), torch.tensor([0.5])
    >>> add_noise(clean, noise, half, half, prediction="flow")
    (tensor([[3.]]), tensor([[2.]]))
    """
    run = kernel if takes_kernel("add_noise", impl, clean, _log) else reference
    return run(clean, noise, signal, amount, prediction=prediction)


def reference(
    clean: Tensor, noise: Tensor, signal: Tensor, amount: Tensor, *, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """The same in plain torch, one product after the other."""
    _check(clean, noise, signal, amount, prediction)
    signal, amount = along(signal, clean), along(amount, clean)
    noisy = signal * clean + amount * noise
    match prediction:
        case "epsilon":
            return noisy, noise
        case "sample":
            return noisy, clean
        case "v":
            return noisy, signal * noise - amount * clean
        case "flow":
            return noisy, noise - clean


def kernel(
    clean: Tensor, noise: Tensor, signal: Tensor, amount: Tensor, *, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """The same by one Triton kernel; its backward pass is plain torch, since latents seldom train."""
    _check(clean, noise, signal, amount, prediction)
    signal, amount = (one.to(clean.device, _sum_type(clean)) for one in (signal, amount))
    rows = [torch.stack([signal, amount], -1)]  # b 2
    if prediction == "v":
        rows.append(torch.stack([-amount, signal], -1))
    elif prediction == "flow":
        rows.append(torch.stack([-torch.ones_like(signal), torch.ones_like(signal)], -1))
    found = cast("tuple[Tensor, ...]", _Mixed.apply(clean, noise, torch.stack(rows, 1)))
    return found[0], {"epsilon": noise, "sample": clean}.get(prediction, found[-1])


def along(values: Tensor, like: Tensor) -> Tensor:
    """``b`` as ``b 1 1 ...`` of the device and type of ``b ...``."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


class _Mixed(torch.autograd.Function):
    """Sums of two tensors: of each sample one for each row of a matrix, ``b r 2``."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor, matrix: Tensor) -> tuple[Tensor, ...]:
        from modalign.ops.add_noise_kernel import launch

        ctx.save_for_backward(matrix)
        return launch(x.contiguous(), y.contiguous(), matrix.contiguous())

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (matrix,) = cast("tuple[Tensor]", ctx.saved_tensors)  # pyright: ignore[reportAttributeAccessIssue]
        needs: tuple[bool, ...] = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]

        def column(number: int) -> Tensor:
            first, *rest = (along(matrix[:, row, number], one) * one for row, one in enumerate(grads))
            return sum(rest, start=first)

        return (*(column(number) if needs[number] else None for number in range(2)), None)


def _sum_type(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _check(clean: Tensor, noise: Tensor, signal: Tensor, amount: Tensor, prediction: Prediction) -> None:
    if prediction not in ("epsilon", "v", "sample", "flow"):
        raise ConfigError(
            f"add_noise has no target {prediction!r}", got="epsilon, v, sample, flow", fix="pass one of them"
        )
    if clean.shape != noise.shape or not clean.ndim:
        raise ShapeError(f'noise: expected "b ..." = {tuple(clean.shape)}, as the latents have', got=tuple(noise.shape))
    for name, one in (("signal", signal), ("amount", amount)):
        if tuple(one.shape) != (clean.shape[0],):
            raise ShapeError(f'{name}: expected "b" = ({clean.shape[0]},)', got=tuple(one.shape))
    if clean.dtype != noise.dtype:
        raise ModelError(
            "latents and noise must have one type", got=f"{clean.dtype} and {noise.dtype}", fix="cast one of them"
        )


def probe() -> dict[str, object]:
    """Arguments to try it on, by name."""
    made = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5, generator=made)
    signal, amount = torch.tensor([0.8, 0.1, 0.5]), torch.tensor([0.6, 0.9, 0.5])
    return {"clean": clean, "noise": noise, "signal": signal, "amount": amount, "prediction": "v"}
