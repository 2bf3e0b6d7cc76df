"""How actions are decoded: what they must be, and the most that is read."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from modalign.roles import MediaSettings

MOST_BYTES = 64 << 20  #: of any file of actions


class ActionSettings(MediaSettings):
    """What chunks of actions must be; what is None may be anything."""

    steps: PositiveInt | None = None
    """Steps of every chunk."""

    dimensions: PositiveInt | None = None
    """Dimensions of every action: 7 are position, rotation and gripper of an arm."""

    low: tuple[float, ...] | None = None
    """The least that each dimension may be, in its own unit."""

    high: tuple[float, ...] | None = None
    """The most that each dimension may be, in its own unit."""

    max_values: PositiveInt = Field(default=1 << 20)
    """Most numbers of a chunk: steps times dimensions."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low in self.low or ():
            if math.isnan(low):
                raise ValueError("low must be numbers")
        sizes = {len(one) for one in (self.low, self.high) if one is not None}
        sizes |= set() if self.dimensions is None else {self.dimensions}
        if len(sizes) > 1:
            msg = f"dimensions, low and high must agree, and are of {sorted(sizes)} dimensions"
            raise ValueError(msg)
        if any(not low < high for low, high in zip(self.low or (), self.high or (), strict=False)):
            raise ValueError("low must be below high in every dimension")
        return self
