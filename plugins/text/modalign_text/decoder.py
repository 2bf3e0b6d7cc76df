"""The text decoder: log-probabilities of a response's tokens, from the states before them, without keeping logits.

r rows, n tokens, d width, u units, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    never: ids of tokens that are never said as words; what is left is what words are sampled from.
    """

    modality: str = "text"
    kind: UnitKind = "token"
    anywhere = False

    never: Tensor | None

    def __init__(
        self, head: nn.Module, *, scale: float = 1.0, softcap: float | None = None, never: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.head = head
        self.scale = scale
        self.softcap = softcap
        self.register_buffer("never", torch.tensor(never) if never else None, persistent=False)

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
        if plain(head) and (self.never is None or self.softcap is None):
            bias = None if head.bias is None else head.bias * self.scale
            if self.never is not None:
                bias = self._shut(hidden.new_zeros(head.weight.shape[0]) if bias is None else bias)
            values = linear_logprob(hidden, head.weight, found.token, bias=bias, scale=self.scale, softcap=self.softcap)
        else:
            values = called(lambda states: self._shut(self.shaped(head(states))), hidden, found.token)
        return Units(kind=self.kind, values=values, segment=found.segment)

    def shaped(self, raw: Tensor) -> Tensor:
        """The logits ``... v`` of what the head gives, of every token there is."""
        logits = (raw if raw.dtype == torch.float64 else raw.float()) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def _shut(self, logits: Tensor) -> Tensor:
        """Logits ``... v`` with the lowest number for what is never said."""
        return logits if self.never is None else logits.index_fill(-1, self.never, torch.finfo(logits.dtype).min)


def called(logits: Callable[[Tensor], Tensor], hidden: Tensor, token: Tensor) -> Tensor:
    """Log-probability ``u`` of each token behind a state ``u d``; no chunk's logits outlive it.

    logits: ``u v`` of states, by calling modules; called again in the backward pass.
    """

    def chunk(states: Tensor, wanted: Tensor) -> Tensor:
        found = logits(states)
        found = found if found.dtype == torch.float64 else found.float()
        return found.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]

    # at least one call, so that a batch without text reaches the head's parameters, and the collectives of a
    # sharded head, like any other
    chunks = zip(hidden.split(ROWS) or (hidden,), token.split(ROWS) or (token,), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(*one) for one in chunks])
    return torch.cat([cast(Tensor, checkpoint(chunk, *one, use_reentrant=False)) for one in chunks])


def plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling the head is a matmul with its weight and nothing else."""
    watched = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks
    return type(head) is nn.Linear and not watched


def _none(batch: Batch) -> TokenUnits:
    nothing = torch.zeros(0, dtype=torch.long, device=batch.device)
    return TokenUnits(row=nothing, index=nothing, token=nothing, segment=nothing)
