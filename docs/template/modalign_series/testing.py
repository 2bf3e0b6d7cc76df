"""What the contract is tried on: example parts, and a tiny encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.content import Part
from modalign_series.encoder import SeriesEncoder


def parts() -> list[Part]:
    """Different media."""
    return [Part(modality="series", value=torch.linspace(0, at, 3 + 2 * at)) for at in range(1, 5)]


def probe(folder: Path) -> Path:
    """A tiny encoder with weights of its own, in an empty folder."""
    torch.manual_seed(0)
    SeriesEncoder().save(folder)
    return folder
