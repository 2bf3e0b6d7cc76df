"""The text decoder: log-probabilities of a response's tokens, from the states before them, without keeping logits.

r rows, n tokens, d width, u units, v vocabulary.
"""

from __future__ import annotations

from typing import TypeGuard, cast, final

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modalign.batch import Batch, TokenUnits
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.ops.linear_logprob import linear_logprob
from modalign.roles import Decoder
from modalign.scores import UnitKind, Units

ROWS = 128  #: tokens at a time through a head that has to be called as a module


@final
class TextDecoder(Decoder):
    """Exact log-probabilities under the head and vocabulary that the model samples from.

    head: states to logits. A plain `nn.Linear` is read by its weight and bias. Anything else (adapters on the head,
        quantised weights, hooks) is called, a chunk of tokens at a time, and called again in the backward pass.
    scale: multiplies the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`).
    softcap: logits become ``softcap * tanh(logits / softcap)`` (Gemma 2).
    """

    modality: str = "text"
    kind: UnitKind = "token"

    def __init__(self, head: nn.Module, *, scale: float = 1.0, softcap: float | None = None) -> None:
        super().__init__()
        self.head = head
        self.scale = scale
        self.softcap = softcap

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        if states is None:
            raise ModelError(
                "the text decoder needs a backbone's states", got="a model without a backbone", fix="give it one"
            )
        found = batch.units.get("text") or _none(batch)
        flat = rearrange(states, "r n d -> (r n) d")
        # index_select, whose gradient is an index_add: one state may predict the first token of every branch
        hidden = flat.index_select(0, found.row * states.shape[1] + found.index)  # u d
        head = self.head
        if _plain(head):
            bias = None if head.bias is None else head.bias * self.scale
            values = linear_logprob(hidden, head.weight, found.token, bias=bias, scale=self.scale, softcap=self.softcap)
        else:
            values = self._called(hidden, found.token)
        return Units(kind=self.kind, values=values, segment=found.segment)

    def _called(self, hidden: Tensor, token: Tensor) -> Tensor:
        """The same through the module itself; no chunk's logits outlive it."""
        # at least one call, so that a batch without text reaches the head's parameters, and the collectives of a
        # sharded head, like any other
        chunks = zip(hidden.split(ROWS) or (hidden,), token.split(ROWS) or (token,), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([self._chunk(*chunk) for chunk in chunks])
        return torch.cat([cast(Tensor, checkpoint(self._chunk, *chunk, use_reentrant=False)) for chunk in chunks])

    def _chunk(self, hidden: Tensor, token: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        logits = (logits if logits.dtype == torch.float64 else logits.float()) * self.scale  # u v
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits.log_softmax(-1).gather(-1, token[:, None])[:, 0]


def _plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling the head is a matmul with its weight and nothing else."""
    watched = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks
    return type(head) is nn.Linear and not watched


def _none(batch: Batch) -> TokenUnits:
    nothing = torch.zeros(0, dtype=torch.long, device=batch.device)
    return TokenUnits(row=nothing, index=nothing, token=nothing, segment=nothing)
