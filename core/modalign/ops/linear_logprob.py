"""Log-probability of one target per row under a linear head, without keeping logits.

n rows, d width, v vocabulary.

A target's log-probability has the gradient ``softmax - onehot`` with respect to its logits, known as soon as the
logits are. So nothing of size ``n v`` has to outlive a chunk of rows:

- frozen head: the forward pass stores ``U = d logp / d hidden``, ``n d``; the backward pass multiplies it (2 matmuls);
- trained head, all exponentials within ``keep`` bytes: they are kept, and the backward pass reads them (3 matmuls);
- trained head otherwise: the backward pass computes each chunk's logits again (4 matmuls).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Literal, final

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from modalign.errors import ConfigError, KernelUnavailable, ModelError, ShapeError
from modalign.ops.precision import MatmulSum, autocast_dtype, wide

Impl = Literal["auto", "reference", "chunked"]

KEEP = 64 << 20  #: bytes of exponentials that may be kept for the backward pass of a trained head
CHUNK = {"cpu": 32 << 20}  #: bytes of logits at a time, by device
CHUNK_ELSEWHERE = 256 << 20

_log = logging.getLogger(__name__)


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
    keep: int = KEEP,
    impl: Impl = "auto",
) -> Tensor:
    """Log-probability of each target, ``n`` in float32 (float64 where the input is).

    The logits are ``scale * hidden @ weight.T + bias``, then ``softcap * tanh(logits / softcap)``. The matmul runs in
    the input's type, or autocast's; everything after it in float32.

    hidden: ``n d`` states. weight: ``v d``. target: ``n`` of long, each below v. bias: ``v``.
    chunk: rows at a time; by default as many as give 32 MiB of logits (256 MiB off the CPU).
    keep: most bytes of exponentials kept for the backward pass of a trained head, all rows in one chunk then; 0 always
        computes them again.
    impl: `reference` is plain torch; `chunked`, which `auto` takes, keeps no logits and has no second derivative.

    >>> linear_logprob(torch.zeros(1, 3), torch.zeros(4, 3), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    _check(hidden, weight, target, bias, chunk)
    match impl:
        case "reference":
            return reference(hidden, weight, target, bias=bias, scale=scale, softcap=softcap)
        case "auto" | "chunked":
            if impl == "auto":
                _announce()
            return chunked(hidden, weight, target, bias=bias, scale=scale, softcap=softcap, chunk=chunk, keep=keep)
        case _:
            raise ConfigError(
                f"linear_logprob has no implementation {impl!r}", got="auto, reference, chunked", fix="pass one of them"
            )


def reference(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """The same in plain torch: the whole logits, their log-softmax, one entry of each row."""
    logits = wide(functional.linear(hidden, weight)) * scale  # n v
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]


def chunked(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
    keep: int = KEEP,
) -> Tensor:
    """The same a chunk of rows at a time; arguments as in `linear_logprob`."""
    dtype = autocast_dtype(hidden)
    if dtype is None and hidden.dtype != weight.dtype:
        raise ModelError(
            "states and head must have one type outside autocast",
            got=f"{hidden.dtype} and {weight.dtype}",
            fix="cast one of them, or run under torch.autocast",
        )
    row_bytes = weight.shape[0] * (8 if hidden.dtype == torch.float64 else 4)
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    kept = trained and hidden.shape[0] * row_bytes <= keep
    rows = chunk or max(1, CHUNK.get(hidden.device.type, CHUNK_ELSEWHERE) // row_bytes)
    plan = _Plan(
        scale=scale,
        softcap=softcap,
        dtype=dtype or hidden.dtype,
        rows=max(hidden.shape[0], 1) if kept else rows,
        kept=kept,
    )
    if torch.is_grad_enabled() and (hidden.requires_grad or trained):
        found: Tensor = _LinearLogprob.apply(hidden, weight, bias, target, plan)
        return found
    with torch.autocast(hidden.device.type, enabled=False):
        head = _Head(weight, bias, plan)
        logps = wide(hidden.new_zeros(hidden.shape[0]))
        for at in range(0, hidden.shape[0], rows):
            logps[at : at + rows] = head.logps(hidden[at : at + rows], target[at : at + rows])
        return logps


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How one call runs: rows of a chunk, the matmul's type, whether a trained head keeps the exponentials."""

    scale: float
    softcap: float | None
    dtype: torch.dtype
    rows: int
    kept: bool


@final
class _Head:
    """A head in the type it computes in, and the passes over one chunk of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None, plan: _Plan) -> None:
        self.weight, self.bias, self.plan = weight.to(plan.dtype), bias, plan

    def logits(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, ``n v`` in a buffer of their own, and the softcap's derivative at each."""
        logits = wide(hidden.to(self.plan.dtype) @ self.weight.T)
        if self.plan.scale != 1.0:
            logits.mul_(self.plan.scale)
        if self.bias is not None:
            logits.add_(self.bias)
        if self.plan.softcap is None:
            return logits, None
        logits.div_(self.plan.softcap).tanh_()
        slope = torch.addcmul(torch.ones_like(logits), logits, logits, value=-1)  # 1 - tanh^2
        return logits.mul_(self.plan.softcap), slope

    def logps(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities only, ``n``."""
        logits, _ = self.logits(hidden)
        picked = logits.gather(-1, target[:, None])[:, 0]
        return picked - torch.logsumexp(logits, -1)

    def forward(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities, the log-partition, and ``-total * d logp / d logits`` with its total.

        The total stays a factor per row, which the caller moves to the small side of its matmul: dividing all of
        ``n v`` by it would be one more pass over the largest tensor there is.
        """
        logits, slope = self.logits(hidden)
        top = logits.amax(-1, keepdim=True)
        picked = logits.gather(-1, target[:, None])
        exponentials = logits.sub_(top).exp_()  # n v, the same buffer
        total = exponentials.sum(-1, keepdim=True)
        partition = top + total.log()
        logps = (picked - partition)[:, 0]
        return logps, partition, _less_target(exponentials, slope, target, total), total

    def again(self, hidden: Tensor, target: Tensor, partition: Tensor) -> Tensor:
        """``-d logp / d logits``, ``n v``, from logits computed again."""
        logits, slope = self.logits(hidden)
        return _less_target(logits.sub_(partition).exp_(), slope, target, torch.ones_like(partition))


def _less_target(exponentials: Tensor, slope: Tensor | None, target: Tensor, total: Tensor) -> Tensor:
    """``exponentials - total * onehot``, times the softcap's slope, in place.

    The target's entry is subtracted here, in float32, and not as ``weight[target]`` after the matmul: a token that is
    almost certain has a gradient that is almost zero, and the difference of two rounded bf16 rows would lose it.
    """
    exponentials.scatter_add_(-1, target[:, None], -total)
    return exponentials if slope is None else exponentials.mul_(slope)


class _LinearLogprob(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd functions take no keywords)
        ctx: FunctionCtx, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, plan: _Plan
    ) -> Tensor:
        needs: tuple[bool, ...] = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]
        logps = wide(hidden.new_zeros(hidden.shape[0]))
        partition = torch.zeros_like(logps)[:, None]
        gradient = None if needs[1] or needs[2] else torch.empty_like(hidden)
        minus, total = None, None
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head(weight, bias, plan)
            for at in range(0, hidden.shape[0], plan.rows):
                part = slice(at, at + plan.rows)
                logps[part], partition[part], minus, total = head.forward(hidden[part], target[part])
                if gradient is not None:
                    gradient[part] = (minus.to(plan.dtype) @ head.weight) * (-plan.scale / total)
                # let go before the next chunk; what is kept is in the matmul's type: in bf16 half the size
                minus = minus.to(plan.dtype) if plan.kept else None
        ctx.plan = plan  # pyright: ignore[reportAttributeAccessIssue]
        if gradient is not None:
            ctx.save_for_backward(gradient)
        else:
            saved = (hidden, weight, bias, target, partition, minus, total if plan.kept else None)
            ctx.save_for_backward(*saved)  # pyright: ignore[reportArgumentType]
        return logps

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():
            raise KernelUnavailable(
                "linear_logprob(impl='chunked') has no second derivative",
                got="a backward pass with create_graph=True",
                fix="pass impl='reference'",
            )
        plan: _Plan = ctx.plan  # pyright: ignore[reportAttributeAccessIssue]
        needs: tuple[bool, ...] = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]
        saved: tuple[Tensor, ...] = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        if len(saved) == 1:
            return (grad[:, None] * saved[0]).to(saved[0].dtype), None, None, None, None
        hidden, weight, bias, target, partition, minus, total = saved
        to_hidden = torch.empty_like(hidden) if needs[0] else None
        to_weight = MatmulSum(weight) if needs[1] else None
        to_bias = MatmulSum(bias) if needs[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head(weight, bias, plan)
            for at in range(0, hidden.shape[0], plan.rows):
                part = slice(at, at + plan.rows)
                if plan.kept:
                    known, factor = minus, -grad[part, None] / total
                else:
                    known = head.again(hidden[part], target[part], partition[part]).to(plan.dtype)
                    factor = -grad[part, None]
                if to_hidden is not None:
                    to_hidden[part] = (known @ head.weight) * (factor * plan.scale)
                if to_weight is not None:
                    to_weight.add(known.T, (hidden[part] * (factor * plan.scale)).to(plan.dtype))
                if to_bias is not None:
                    to_bias.add(known.T, factor.to(plan.dtype))
        return (to_hidden, to_weight and to_weight.result(), to_bias and to_bias.result(), None, None)


@cache
def _announce() -> None:
    _log.info("linear_logprob: impl='auto' takes 'chunked'")


def _check(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, chunk: int | None) -> None:
    d, v, n = weight.shape[-1], weight.shape[0], target.shape[0] if target.ndim else 0
    for name, pattern, value, shape in (
        ("weight", "v d", weight, (v, d)),
        ("hidden", "n d", hidden, (n, d)),
        ("target", "n", target, (n,)),
        ("bias", "v", bias, (v,)),
    ):
        if value is not None and tuple(value.shape) != shape:
            raise ShapeError(f'{name}: expected "{pattern}" = {shape}', got=tuple(value.shape))
    if chunk is not None and chunk < 1:
        raise ConfigError("chunk is a number of rows, at least 1", got=chunk, fix="leave it out, or pass a number")
