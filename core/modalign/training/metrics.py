"""Means in two parts, added up over micro-batches, processes and logging windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from modalign.objectives.base import Mean

Total = tuple[float, float]  #: a sum and a count


@final
class Sums:
    """Sums and counts by name, on the device, so that adding them costs no synchronisation."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add to one name; both are 0-d."""
        pair = torch.stack([total.detach().double(), count.detach().double()])
        self.found[name] = self.found[name] + pair if name in self.found else pair

    def extend(self, metrics: Mapping[str, Mean]) -> None:
        """Add what an objective reported."""
        for name, mean in metrics.items():
            self.add(name, mean.sum, mean.count)


@final
class Window:
    """What has been measured since metrics were last written, over all processes."""

    def __init__(self, totals: Mapping[str, Total] | None = None) -> None:
        self.totals: dict[str, Total] = {name: (pair[0], pair[1]) for name, pair in (totals or {}).items()}

    def extend(self, totals: Mapping[str, Total]) -> None:
        """Add one step."""
        for name, (total, count) in totals.items():
            before = self.totals.get(name, (0.0, 0.0))
            self.totals[name] = (before[0] + total, before[1] + count)

    def means(self, prefix: str = "") -> dict[str, float]:
        """The mean of each name, and the margin of what need not come in pairs: a difference of two means."""
        found = {name: total / count for name, (total, count) in self.totals.items() if count}
        if "rewards/chosen" in found and "rewards/rejected" in found:
            found.setdefault("rewards/margins", found["rewards/chosen"] - found["rewards/rejected"])
        return {prefix + name: value for name, value in found.items()}
