"""The laws of every family of pictures, each on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from modalign.data import read
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign_image.generators import testing

#: By the name of the family, what makes its laws in an empty folder.
CASES: Final = MappingProxyType(
    {
        "sd3": lambda folder: FamilyLaws(testing.stable_diffusion_3(folder), _rows(), {"height": 16, "width": 16}),
    }
)


def laws(name: str, folder: Path) -> FamilyLaws:
    """The laws of one family."""
    make: Callable[[Path], FamilyLaws] = CASES[name]
    return make(folder)


def _rows() -> list:
    data = read("oracle", split="image/shared-defect", limit=2)
    return [data[number] for number in range(len(data))]
