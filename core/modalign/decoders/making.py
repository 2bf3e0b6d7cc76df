"""Media that a denoiser makes of prompts while it trains, and their reward, whose gradient reaches its weights.

a responses, b media of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, final

import torch
from torch import Tensor

from modalign.batch import Batch, Medium
from modalign.decoders.backprop import Backprop, Route
from modalign.decoders.generating import WORDS
from modalign.draws import DrawKey, Draws
from modalign.errors import ModelError, ShapeError

if TYPE_CHECKING:
    from modalign.decoders.denoiser import Denoiser


@final
@dataclass(frozen=True, kw_only=True)
class _Row:
    """One medium to be made.

    response: it is of.
    prompt: what it shall be.
    key, draw: what its noise is seeded by.
    """

    response: int
    prompt: Medium
    key: DrawKey
    draw: int


def judge(denoiser: Denoiser, modality: str, batch: Batch, draws: Draws, backprop: Backprop) -> Tensor:
    """The mean reward of the media that are made for each response, ``a`` in float64; 0 where none is.

    Media of one route are made together; of what is drawn for one nothing depends on which others there are.

    modality: of the segments whose media are yet to be made.
    """
    rows = [
        _Row(response=one.response, prompt=batch.media[one.given or ""], key=one.key, draw=draw)
        for one in batch.segments
        if one.decoder == modality and one.digest is None
        for draw in range(draws.count)
    ]
    routes: dict[Route, list[_Row]] = {}
    for row in rows:
        routes.setdefault(backprop.route(draws.uniform(row.key, row.draw)), []).append(row)
    total = torch.zeros(batch.responses, dtype=torch.float64, device=batch.device)
    for route, some in routes.items():
        media = denoiser.sample([row.prompt for row in some], [draws.source(row.key, row.draw) for row in some], route)
        found = _rewards(backprop, [cast(str, row.prompt.extra[WORDS]) for row in some], media, modality)
        total = total.index_add(0, _numbers(some, total.device), found.to(total))
    made = torch.bincount(_numbers(rows, total.device), minlength=batch.responses)
    return total / made.clamp(min=1)


def _numbers(rows: Sequence[_Row], device: torch.device) -> Tensor:
    return torch.tensor([row.response for row in rows], dtype=torch.long, device=device)


def _rewards(backprop: Backprop, prompts: list[str], media: Tensor, modality: str) -> Tensor:
    """What the reward says of media, ``b``."""
    traced = torch.is_grad_enabled()
    if traced and not media.requires_grad:
        raise ModelError(
            f"no gradient comes back from the {modality} that this model makes",
            got="media without a graph",
            fix="train a family that samples with a graph, or leave the network unfrozen",
        )
    with torch.autocast(media.device.type, enabled=False):  # in the precision of its own weights
        found = backprop.reward(prompts, media.float())
    if not isinstance(found, Tensor) or found.shape != (len(prompts),):
        raise ShapeError(
            f'a reward gives one number for each medium: "b" with b={len(prompts)}',
            where="objective.reward",
            got=tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__,
            fix="return a tensor of that shape",
        )
    if traced and not found.requires_grad:
        raise ModelError(
            "no gradient comes back from this reward",
            where="objective.reward",
            got="numbers without a graph",
            fix="compute it from the media with differentiable operations, without no_grad, numpy or .detach()",
        )
    return found
