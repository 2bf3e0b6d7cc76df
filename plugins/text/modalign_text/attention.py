"""Split attention: the queries of each span over the keys of its ancestors and its own, one exact call per span.

No mask over the prompt is ever made: a trunk is the causal kernel, and a branch needs only the rows of its own queries.
Rotation of positions happens before an attention function is called, so the layout's positions need nothing here.
After Prefix Grouper, https://arxiv.org/abs/2506.05433, for trees of any depth and rows of any shape.

r rows, h heads, g heads of keys, n tokens, d width of a head, l tokens of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast, final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from modalign.errors import ModelError, ShapeError
from modalign.layout import Layout, Span

NAME: Final = "modalign_tree"  #: of the attention implementation
ARGUMENT: Final = "modalign_plan"  #: the keyword a decoder hands down to it

_UNSUPPORTED: Final = ("softcap", "s_aux", "position_bias")  # they change the softmax; sdpa drops the second silently


sdpa = cast(Callable[..., tuple[Tensor, None]], sdpa_attention_forward)


@final
@dataclass(frozen=True, kw_only=True)
class Piece:
    """One span as split attention sees it.

    place: its number among the pieces of its row.
    span: where it lies.
    path: numbers of the pieces whose keys it sees, oldest first, itself last.
    """

    place: int
    span: Span
    path: tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the rows of a layout are cut.

    width: tokens of a row.
    lengths: of the pieces of each row, in order; they add up to the width, gaps and padding among them.
    pieces: of each row, those that are spans.
    """

    width: int
    lengths: tuple[tuple[int, ...], ...]
    pieces: tuple[tuple[Piece, ...], ...]


@lru_cache(maxsize=32)
def plan(layout: Layout) -> Plan:
    """The cut of a layout, remembered: policy and reference see the same layout, and every layer does."""
    lengths: list[tuple[int, ...]] = []
    pieces: list[tuple[Piece, ...]] = []
    places: dict[int, int] = {}
    for row in range(layout.rows):
        members = [number for number, span in enumerate(layout.spans) if span.row == row and len(span)]
        members.sort(key=lambda number: layout.spans[number].start)
        found: list[int] = []
        at = 0
        for number in members:
            span = layout.spans[number]
            if span.start > at:
                found.append(span.start - at)
            places[number] = len(found)
            found.append(len(span))
            at = span.stop
        if at < layout.width:
            found.append(layout.width - at)
        lengths.append(tuple(found))
        pieces.append(
            tuple(
                Piece(
                    place=places[number],
                    span=layout.spans[number],
                    path=tuple(places[member] for member in layout.path(number) if len(layout.spans[member])),
                )
                for number in members
            )
        )
    return Plan(width=layout.width, lengths=tuple(lengths), pieces=tuple(pieces))


@lru_cache(maxsize=16)
def _lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """What the last ``queries`` of ``keys`` tokens see, ``1 1 queries keys`` of bool."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None, None]


def tree_attention(  # noqa: PLR0917  # the library calls it so
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention of every token over its path, ``r n h d``; exactly transformers' sdpa where no plan is handed down.

    query: ``r h n d``; key, value: ``r g n d``.
    attention_mask: with a plan, what a plain sequence attends to, ``1 1 l l`` or ``r 1 l l`` of bool, and empty where
        that is plainly causal; without one, transformers' own mask.
    """
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ModelError(
                "split attention does not know this family's attention",
                got=f"{name} in {type(module).__name__}",
                fix="load with sharing='mask' or 'off', and attn_implementation='eager'",
            )
    cut = kwargs.pop(ARGUMENT, None)
    kwargs = {"dropout": dropout, "scaling": scaling} | kwargs
    if cut is None:
        return sdpa(module, query, key, value, attention_mask, **kwargs)
    assert isinstance(cut, Plan)
    if query.shape[2] != cut.width or key.shape[2] != cut.width:
        raise ShapeError(
            f'expected queries and keys "r h n d" with n={cut.width}', got=f"{(*query.shape,)}, {(*key.shape,)}"
        )
    if attention_mask is None:
        # the family dropped what was handed down; guessing "causal" here would lose a window without a word
        raise ModelError("no mask reached split attention", got=type(module).__name__, fix="load with sharing='off'")
    own = attention_mask if attention_mask.numel() else None
    # one call per span; `is_causal` is ours to say, whatever the module believes of itself
    kwargs["is_causal"] = True
    rows: list[Tensor] = []
    columns = zip(query.split(1), key.split(1), value.split(1), strict=True)
    for row, (queries, keys, values) in enumerate(columns):
        lengths = list(cut.lengths[row])
        # one split per row: its backward is one concatenation, where slices would each fill a row with zeros
        q, k, v = (tensor.split(lengths, dim=2) for tensor in (queries, keys, values))
        outputs: list[Tensor | None] = [None] * len(lengths)
        for piece in cut.pieces[row]:
            path_k, path_v = _join(k, piece.path), _join(v, piece.path)
            sees = _sees(own, row, piece, path_k.shape[2], query.device)
            outputs[piece.place], _ = sdpa(module, q[piece.place], path_k, path_v, sees, **kwargs)  # 1 span h d
        rows.append(_fill(outputs, lengths, value, query.shape[1]))
    return torch.cat(rows), None


def _join(pieces: Sequence[Tensor], path: Sequence[int]) -> Tensor:
    return pieces[path[0]] if len(path) == 1 else torch.cat([pieces[number] for number in path], dim=2)


def _sees(own: Tensor | None, row: int, piece: Piece, keys: int, device: torch.device) -> Tensor | None:
    """The mask of one span's queries over its path, ``1 1 span path``; None where the causal kernel is right."""
    start, stop = piece.span.offset, piece.span.offset + len(piece.span)
    if own is not None:
        mine = own if own.shape[0] == 1 else own[row : row + 1]
        return mine[:, :, start:stop, :stop]
    return None if start == 0 else _lower_right(stop - start, keys, device)


def _fill(outputs: Sequence[Tensor | None], lengths: Sequence[int], like: Tensor, heads: int) -> Tensor:
    """A row of outputs, ``1 n h d``, with zeros where no span lies."""
    return torch.cat(
        [
            like.new_zeros(1, length, heads, like.shape[-1]) if output is None else output
            for output, length in zip(outputs, lengths, strict=True)
        ],
        dim=1,
    )


AttentionInterface.register(NAME, tree_attention)
# registered too, so that the masks a family makes for itself (windows, chunks, blocks) are made as for sdpa
AttentionMaskInterface.register(NAME, sdpa_mask)
