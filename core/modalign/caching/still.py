"""States of a backbone that does not train: computed once for each row within a step, and once at all with a cache.

Only the states that something reads are kept: a prompt, however long, costs nothing where all decoders and heads say
that they read none of it.

r rows, n tokens of a row, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from modalign.batch import Batch, Medium, own
from modalign.roles import Backbone, Decoder, Encoder, Head

if TYPE_CHECKING:
    from modalign.model import Model

_NAME = "states"  #: under which a step's memo keeps them


def states(model: Model, batch: Batch, run: Callable[[], Tensor]) -> Tensor:
    """States ``r n d`` of a batch, remembered where nothing that they come from trains: zeros where nothing reads them.

    run: gives them.
    """
    backbone = cast(Backbone, model.backbone)
    memo, sources = model.memo, _sources(model, batch)
    if not memo.keeps or any(_moves(one) or _switched(model, one) for one in (backbone, *sources)):
        return run()
    kept = all(medium.modality != own(name) for name in model.decoders for medium in _shown(batch))
    beside: dict[str, object] = dict(backbone.facts)
    if kept and memo.cache is not None:
        beside |= {f"source {number}": _known(one, memo.cache.mark(one)) for number, one in enumerate(sources)}
    anywhere = any(cast(Decoder | Head, one).anywhere for one in (*model.decoders.values(), *model.heads.values()))
    read = _everything(batch) if anywhere else _read(batch)
    digests = [_digest(batch, row, read[row]) for row in range(batch.layout.rows)]
    media = {one: Medium(modality=_NAME, tensors={}, digest=one, cacheable=kept) for one in digests}
    found: dict[str, Tensor] = {}

    def give(missing: list[Medium]) -> list[Tensor]:
        if not found:
            whole = run()
            found.update({one: whole[row, read[row]].clone() for row, one in enumerate(digests)})
        return [found[one.digest] for one in missing]

    each = cast("dict[str, Tensor]", memo.frozen(_NAME, backbone, media, give, beside))
    first = next(iter(each.values()))
    laid = first.new_zeros(*batch.tokens.shape, first.shape[-1])
    for row, one in enumerate(digests):
        laid[row, read[row]] = each[one]
    return laid


def _everything(batch: Batch) -> list[list[int]]:
    """Every token of each row that is no padding."""
    return [row.nonzero()[:, 0].tolist() for row in batch.layout.real]


def _read(batch: Batch) -> list[list[int]]:
    """The tokens of each row whose states anything reads: what is scored, what conditions media, how responses end."""
    found: list[set[int]] = [set() for _ in range(batch.layout.rows)]
    pairs = [batch.ends.tolist(), *(torch.stack([one.row, one.index], 1).tolist() for one in batch.units.values())]
    for row, index in (pair for one in pairs for pair in one):
        found[row].add(index)
    for one in batch.segments:
        found[one.row].update(one.before)
        if one.condition is not None:
            span = batch.layout.spans[one.condition]
            found[span.row].update(range(span.start, span.stop))
    return [sorted(one) for one in found]


def _shown(batch: Batch) -> list[Medium]:
    return [batch.media[digest] for digest in dict.fromkeys(slot.digest for slot in batch.slots)]


def _sources(model: Model, batch: Batch) -> list[nn.Module]:
    """What gives the embeddings of the media in a batch."""
    names = {medium.modality for medium in _shown(batch)}
    found: list[nn.Module] = [one for name, one in model.encoders.items() if name in names]
    found += [one for name, one in model.connectors.items() if name in names]
    for name, decoder in model.decoders.items():
        found += [decoder] if own(name) in names else []
    return found


def _moves(module: nn.Module) -> bool:
    """Whether what a module gives may be another next time."""
    if isinstance(module, Encoder):
        return not module.frozen
    trains = any(value.requires_grad for value in module.parameters())
    return trains or any(isinstance(one, nn.Dropout) and one.p > 0 and one.training for one in module.modules())


def _switched(model: Model, module: nn.Module) -> bool:
    """Whether adapters lie in a module: with them off it gives something else, and nothing of it says so."""
    adapters = model.assembly.adapters
    own = set() if adapters is None else {id(value) for value in adapters.parameters()}
    return any(id(value) in own for value in module.parameters())


def _known(module: nn.Module, mark: str) -> str:
    """What a source is known by: its class, its weights, and what its answers depend on beside them."""
    beside = module.facts if isinstance(module, Encoder) else getattr(module, "settings", {})
    return f"{type(module).__qualname__} {mark} {sorted(beside.items())}"


def _digest(batch: Batch, row: int, read: list[int]) -> str:
    """What tells a row from others, whatever lies beside it: tokens, tree, media, further inputs, and what is read."""
    layout = batch.layout
    numbers = [number for number, span in enumerate(layout.spans) if span.row == row]
    local = {number: at for at, number in enumerate(numbers)}
    spans = [layout.spans[number] for number in numbers]
    tree = [(one.start, one.stop, None if one.parent is None else local[one.parent], one.offset) for one in spans]
    slots = [(one.start, one.stop, one.digest, one.first) for one in batch.slots if one.row == row]
    length = max((one.stop for one in spans), default=0)
    beside = [] if batch.positions is None else [batch.positions[:, row, :length].tolist()]
    beside += [(name, value[row, :length].tolist()) for name, value in sorted(batch.features.items())]
    said = repr((batch.tokens[row, :length].tolist(), tree, slots, beside, read))
    return hashlib.sha256(said.encode()).hexdigest()
