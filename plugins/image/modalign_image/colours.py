"""The oracle world's colours as directions away from a dark ground, so that faint edges keep their colour.

k colours, h w pixels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from modalign.world.concept import VALUES

BACKGROUND = 0.08  #: of all channels
FULL = 0.9  #: of the channels that a colour lights

NAMES: tuple[str, ...] = cast("tuple[str, ...]", VALUES["colour"])
_LIT = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
RAYS = torch.tensor([_LIT[name] for name in NAMES], dtype=torch.float32) * (FULL - BACKGROUND)  # k 3


def paint(coverage: Tensor, colour: str) -> Tensor:
    """A picture ``3 h w`` in which a colour covers each pixel by ``coverage``, ``h w`` from 0 to 1."""
    return BACKGROUND + RAYS[NAMES.index(colour)][:, None, None] * coverage


def strengths(picture: Tensor) -> Tensor:
    """How much of each colour a pixel has, ``k h w``: 1 is all of it, 0 is background.

    picture: ``3 h w`` from 0 to 1.
    """
    lengths = RAYS.norm(dim=-1, keepdim=True)  # k 1
    along = torch.einsum("kc,chw->khw", RAYS / lengths, picture - BACKGROUND)
    own = along / lengths[:, :, None]
    best = along.argmax(0, keepdim=True)  # 1 h w: by length; as shares, yellow and red would tie
    return torch.where(torch.arange(len(NAMES))[:, None, None] == best, own, 0.0)
