"""What reads, checks, saves and shows a medium.

t steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import ClassVar, final

import torch

from modalign.content import Part
from modalign.errors import DataError
from modalign.roles import Content, MediaSettings, Modality


@final
class SeriesModality(Modality):
    """A list of numbers, ``t`` of float32. In rows: `{"type": "series", "series": [0.5, 1, 2]}`."""

    name: ClassVar[str] = "series"
    blocks: ClassVar[tuple[str, ...]] = ("series",)
    columns: ClassVar[tuple[str, ...]] = ("series",)

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        value = block.get("series")
        if not isinstance(value, list | tuple | torch.Tensor) or not len(value):
            raise DataError("expected a list of numbers", field="series", got=repr(value)[:80], fix="write [0.5, 1, 2]")
        for at, one in enumerate(value):
            number = one.item() if isinstance(one, torch.Tensor) else one
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise DataError(
                    "expected a finite number", field=f"series[{at}]", got=repr(number)[:80], fix="correct it"
                )
        return Part(modality=self.name, value=torch.as_tensor(value, dtype=torch.float32))

    def block(self, part: Part) -> Mapping[str, object]:
        return {"type": "series", "series": _numbers(part).tolist()}

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        return Content(modality=self.name, tensor=_numbers(part))

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.json")
        file.write_text(json.dumps(_numbers(part).tolist()))
        return file

    def show(self, part: Part) -> str:
        return f"<code>{escape(str(_numbers(part).tolist()))}</code>"


def _numbers(part: Part) -> torch.Tensor:
    if not isinstance(part.value, torch.Tensor):
        raise DataError("a series is a tensor", field="value", got=type(part.value).__name__)
    return part.value
