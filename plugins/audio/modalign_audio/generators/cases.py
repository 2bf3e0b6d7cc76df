"""The laws of every family of sounds, each on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from torch import Tensor

from modalign.comparison import Comparison
from modalign.data import read
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign_audio.generators import testing

#: By the name of the family, what makes its laws in an empty folder. Lengths are no whole numbers of frames.
CASES: Final[Mapping[str, Callable[[Path], FamilyLaws]]] = MappingProxyType(
    {
        "stable-audio": lambda folder: _plain(testing.stable_audio(folder), seconds=0.4),
        "stable-audio-whole": lambda folder: _plain(testing.stable_audio(folder)),
        "audioldm2": lambda folder: FamilyLaws(testing.audioldm2(folder), rows(), {"seconds": 0.303}),
        "ace-step": lambda folder: _plain(testing.ace_step(folder), seconds=0.5),
        "ace-step-turbo": lambda folder: _plain(testing.ace_step(folder, is_turbo=True), seconds=0.5),
    }
)


def laws(name: str, folder: Path) -> FamilyLaws:
    """The laws of one family."""
    return CASES[name](folder)


def rows() -> list[Comparison]:
    """Two pairs of sounds, each of a second at 4 kHz."""
    data = read("oracle", split="audio/shared-defect", limit=2)
    return [data[number] for number in range(len(data))]


def _plain(folder: Path, **options: object) -> FamilyLaws:
    """Of a network that is told times from 0 to 1, of latents as the process mixes them."""
    return FamilyLaws(folder, rows(), options, seen=_seen)


def _seen(family: Family, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
    return cast(Tensor, given["hidden_states"]), cast(Tensor, given["timestep"]).double().reshape(-1)
