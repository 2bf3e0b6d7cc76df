"""What actions of one robot are: steps, dimensions and ranges, measured on data and kept in a folder.

t steps, a dimensions.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from torch import Tensor

from modalign.config import Config
from modalign.errors import CheckpointError, DataError
from modalign_action.table import FIELD

FILE: Final = "action.json"


class ActionSpace(Config):
    """The actions that a model reads and makes.

    >>> space = ActionSpace(steps=1, low=(0.0, -1.0), high=(2.0, 1.0))
    >>> space.unit(torch.tensor([[2.0, 0.0]]))
    tensor([[1., 0.]])
    """

    steps: PositiveInt
    """Actions of a chunk."""

    low: tuple[float, ...] = Field(min_length=1)
    """The lower end of each dimension's range, in its own unit: a low quantile of the data."""

    high: tuple[float, ...] = Field(min_length=1)
    """The upper end."""

    rate: PositiveFloat | None = None
    """Actions per second, if the data say."""

    bins: int = Field(default=256, ge=2, le=65_536)
    """Bins of each dimension, where actions are discrete."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if len(self.low) != len(self.high):
            msg = f"low and high are of {len(self.low)} and {len(self.high)} dimensions"
            raise ValueError(msg)
        if any(not (low < high and math.isfinite(high - low)) for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("low must be below high in every dimension, and both finite")
        return self

    @property
    def dimensions(self) -> int:
        """Dimensions of an action (a)."""
        return len(self.low)

    @property
    def shape(self) -> tuple[int, int]:
        """Of a chunk: steps and dimensions."""
        return self.steps, self.dimensions

    @classmethod
    def load(cls, path: str | Path) -> ActionSpace:
        """The space in a folder."""
        file = Path(path).expanduser() / FILE
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointError(
                "a folder of actions has an action.json, which says their ranges",
                where=str(file),
                got=" ".join(str(error).split())[:200],
                fix="make it of your rows: python -m modalign_action ROWS FOLDER",
            ) from error

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def check(self, found: Tensor, *, steps: bool = True) -> Tensor:
        """A table ``t a``, or a `DataError` where it is not of this space.

        steps: whether their number must be right too.
        """
        wanted, has = (self.shape, tuple(found.shape)) if steps else (self.dimensions, found.shape[-1])
        if wanted != has:
            said = "steps and dimensions" if steps else "dimensions"
            raise DataError(
                f"this model's actions have {wanted} {said}",
                field=FIELD,
                got=f"{has}",
                fix="cut the data into such chunks, or fit a folder to these",
            )
        return found

    def unit(self, found: Tensor) -> Tensor:
        """Actions ``... a`` in units of their ranges: -1 at the low end, 1 at the high one, beyond them outside."""
        low, wide = self._range(found)
        return 2 * (found - low) / wide - 1

    def back(self, unit: Tensor) -> Tensor:
        """The inverse of `unit`."""
        low, wide = self._range(unit)
        return (unit + 1) / 2 * wide + low

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (torch.tensor(one, dtype=torch.float64) for one in (self.low, self.high))
        return low.to(like), (high - low).to(like)
