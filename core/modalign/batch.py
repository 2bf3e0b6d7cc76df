"""Everything one forward pass needs: token rows, the tree, slots, media, and the targets of the loss.

r rows, n tokens, u units, a responses (answers), b pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import final

import torch
from torch import Tensor

from modalign.draws import DrawKey
from modalign.frozen import empty
from modalign.layout import Layout
from modalign.scores import UnitKind
from modalign.timeline import Spans


@final
@dataclass(frozen=True, kw_only=True)
class Medium:
    """One non-text part as its plugin prepared it; opaque to core, but movable and countable.

    modality: what it is.
    tensors: what an encoder or decoder reads, by name.
    cost: its length in tokens of the backbone.
    cacheable: whether a frozen encoding of it may be kept by digest.
    digest: of its content, once it is part of a batch.
    extra: what its family needs beside tensors.
    """

    modality: str
    tensors: Mapping[str, Tensor]
    cost: int = 0
    cacheable: bool = True
    digest: str = ""
    extra: Mapping[str, object] = field(default_factory=empty)

    def to(self, device: torch.device | str) -> Medium:
        """The same medium on another device."""
        return replace(self, tensors={name: value.to(device) for name, value in self.tensors.items()})


def own(decoder: str) -> str:
    """The modality of media that a decoder embeds itself: its learned queries, or codes that it scores."""
    return f"own of {decoder}"


@final
@dataclass(frozen=True, kw_only=True)
class Slot:
    """The place a medium takes in the sequence: its embeddings replace these tokens.

    row, start, stop: where.
    digest: which medium, a key of `Batch.media`.
    first: which of the medium's embeddings the first token takes; a medium may lie in several runs of tokens.
    """

    row: int
    start: int
    stop: int
    digest: str
    first: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of a response as a decoder scores it.

    response: index of its response in the batch.
    modality: of the part.
    decoder: the decoder that scores it.
    kind: the kind of unit that decoder gives.
    key: what its draws are seeded by.
    weight: in the response's log-likelihood; 0 is context only.
    digest: the medium to be scored, for a decoder of media.
    given: the medium that conditions it, for a decoder of media without a backbone.
    condition: the span whose states condition it, for a decoder of media behind a backbone.
    row, before: or the row and the tokens of it, in reading order, whose states do.
    spans: the seconds of the medium that are scored; all where there are none.
    """

    response: int
    modality: str
    decoder: str
    kind: UnitKind
    key: DrawKey
    weight: float = 1.0
    digest: str | None = None
    given: str | None = None
    condition: int | None = None
    row: int = 0
    before: tuple[int, ...] = ()
    spans: Spans = ()


@final
@dataclass(frozen=True, kw_only=True)
class TokenUnits:
    """The tokens one decoder scores, all responses in one list.

    row, index: ``u`` the state that predicts each token: the row, and the token before it on its path.
    token: ``u`` the token to be predicted.
    segment: ``u`` index into `Batch.segments`.
    """

    row: Tensor
    index: Tensor
    token: Tensor
    segment: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Targets:
    """What an objective compares scores with. Responses are numbered through the batch.

    pairs: ``b 2`` chosen and rejected.
    margins: ``b`` how much better the chosen should be, in reward.
    preferences: by dimension, ``b``: the probability that the chosen is the better one; NaN where nobody said.
    own: ``a`` the responses that belong to their prompt, those the loss is about.
    labels: ``a`` for each of `own`, whether it is desirable (1.0 or 0.0).
    mismatched: ``a`` for each of `own`, another prompt's response laid under its prompt, for a KL estimate.
    rewards: by dimension, ``a``; NaN where nobody said.
    group: ``a`` the comparison each of `own` belongs to.
    weights: ``b`` for pairs, else ``a``: weight in the loss; 0 fills a batch up.
    """

    pairs: Tensor
    own: Tensor
    weights: Tensor
    group: Tensor
    margins: Tensor | None = None
    labels: Tensor | None = None
    mismatched: Tensor | None = None
    rewards: Mapping[str, Tensor] = field(default_factory=empty)
    preferences: Mapping[str, Tensor] = field(default_factory=empty)


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    tokens: ``r n`` token ids; padding is masked by the layout.
    layout: the tree of spans.
    segments: of all responses.
    units: the tokens to be scored, by decoder.
    slots, media: media in the sequence, and all media by digest (those to be scored too).
    ends: ``a 2`` row and index of the last token of each response, for reward heads.
    targets: for the objective.
    ids: ``a`` where each response came from, for messages.
    positions: ``p r n`` where a family numbers positions in several axes; else the layout's index is used.
    features: further per-token inputs of a family, by name, ``r n``.
    """

    tokens: Tensor
    layout: Layout
    segments: tuple[Segment, ...]
    units: Mapping[str, TokenUnits]
    ends: Tensor
    targets: Targets
    ids: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = ()
    media: Mapping[str, Medium] = field(default_factory=empty)
    positions: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=empty)

    @property
    def responses(self) -> int:
        """How many responses there are, over all comparisons."""
        return self.ends.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.tokens.device

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{item.name: _move(getattr(self, item.name), device) for item in fields(self)})


def _move(value: object, device: torch.device | str) -> object:
    match value:
        case Tensor() | Medium():
            return value.to(device)
        case TokenUnits() | Targets():
            return replace(value, **{item.name: _move(getattr(value, item.name), device) for item in fields(value)})
        case Mapping():
            return {name: _move(member, device) for name, member in value.items()}
        case _:
            return value
