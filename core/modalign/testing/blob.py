"""A modality for tests: a blob, a vector in memory, with examples to try it on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError
from modalign.roles import Content, MediaSettings, Modality


class BlobModality(Modality):
    """Blobs; tests of the contract derive broken ones from it.

    >>> BlobModality().block(blobs()[0])["type"]
    'blob'
    """

    name: ClassVar[str] = "blob"
    blocks: ClassVar[tuple[str, ...]] = ("blob",)

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        value = block.get("blob")
        if not isinstance(value, Tensor):
            raise DataError("a blob is a tensor", field="blob", got=type(value).__name__, fix="make it one")
        return Part(modality=self.name, value=value)

    def block(self, part: Part) -> Mapping[str, object]:
        return {"type": "blob", "blob": _vector(part)}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.safetensors")
        save_file({"blob": _vector(part)}, file)
        return file

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        return Content(modality=self.name, tensor=_vector(part))

    def show(self, part: Part) -> str:
        return f"<code>{_vector(part).tolist()}</code>"


def blobs(count: int = 4) -> list[Part]:
    """Different blobs of the size that the toy model takes."""
    made = torch.Generator().manual_seed(0)
    return [Part(modality="blob", value=torch.randn(4, generator=made)) for _ in range(count)]


def _vector(part: Part) -> Tensor:
    if not isinstance(part.value, Tensor):
        raise DataError("a blob is a tensor", field="value", got=type(part.value).__name__)
    return part.value
