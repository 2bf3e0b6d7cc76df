"""The laws of every family of clips, each on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

import torch
from torch import Tensor

from modalign.comparison import Comparison
from modalign.data import read
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.laws import FamilyLaws, plainly_seen
from modalign_video.generators import testing
from modalign_video.generators.ltx import LTX

_SIZE: Final = MappingProxyType({"height": 16, "width": 16})
_FIVE: Final = MappingProxyType({**_SIZE, "num_frames": 5, "fps": 8})
#: twice the rate of the oracle's clips, whose 8 frames are shown twice each
_NINE: Final = MappingProxyType({**_SIZE, "num_frames": 9, "fps": 16})

#: By the name of the family, what makes its laws in an empty folder.
CASES: Final[Mapping[str, Callable[[Path], FamilyLaws]]] = MappingProxyType(
    {
        "wan": lambda folder: FamilyLaws(testing.wan(folder), rows(), _FIVE),
        "wan-euler": lambda folder: FamilyLaws(testing.wan(folder, euler=True), rows(), _FIVE),
        "wan-expanded": lambda folder: _expanded(testing.wan(folder, expand=True)),
        "ltx": lambda folder: _packed(testing.ltx(folder)),
        "ltx-timed": lambda folder: _packed(testing.ltx(folder, timed=True)),
        "cogvideox": lambda folder: FamilyLaws(testing.cogvideox(folder), rows(), _NINE),
        "cogvideox-rotary": lambda folder: FamilyLaws(testing.cogvideox(folder, rotary=True), rows(), _NINE),
        "cogvideox-1.5": lambda folder: _doubled(testing.cogvideox(folder, rotary=True, deep=2)),
    }
)


def laws(name: str, folder: Path) -> FamilyLaws:
    """The laws of one family."""
    return CASES[name](folder)


def rows() -> list[Comparison]:
    """Two pairs of clips."""
    data = read("oracle", split="video/shared-defect", limit=2)
    return [data[number] for number in range(len(data))]


def _expanded(folder: Path) -> FamilyLaws:
    """Of a network that is told the time of each token."""

    def seen(family: Family, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
        times = cast(Tensor, given["timestep"])
        assert times.ndim == 2
        return plainly_seen(family, {**given, "timestep": times[:, 0]})

    return FamilyLaws(folder, rows(), _FIVE, seen=seen)


def _packed(folder: Path) -> FamilyLaws:
    """Of a network that reads tokens."""

    def shaped(family: Family, tokens: Tensor) -> Tensor:
        family = cast(LTX, family)
        height, width = (pixels // family.down for pixels in family.size)
        return family.unpacked(tokens, (family.frames - 1) // family.step + 1, height, width)

    def seen(family: Family, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
        noisy, time = plainly_seen(family, given)
        return shaped(family, noisy), time

    # the pipeline makes no smaller clips
    options = {**_NINE, "height": 32, "width": 32}
    return FamilyLaws(folder, rows(), options, seen=seen, shaped=shaped)


def _doubled(folder: Path) -> FamilyLaws:
    """Of a network that reads three frames of latents with one more before them."""

    def ended(_: Family, latents: Tensor) -> Tensor:
        return torch.cat([latents[:, 1:2], latents[:, 1:]], dim=1)  # the pipeline drops what its sampler made of it

    return FamilyLaws(folder, rows(), _NINE, ended=ended)
