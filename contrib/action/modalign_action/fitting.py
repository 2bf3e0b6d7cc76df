"""The space of a data set's actions, measured and written into a folder.

n actions, a dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modalign.comparison import Comparison
from modalign.data import read
from modalign.errors import DataError
from modalign.registry import registry
from modalign_action.config import ActionSettings
from modalign_action.space import ActionSpace

_NARROW = 1e-3  #: half of the range of a dimension that never moves, as a share of its value, or of 1


def fit(
    rows: str | Path | Sequence[Comparison],
    folder: str | Path,
    *,
    bins: int = 256,
    quantiles: tuple[float, float] = (0.01, 0.99),
) -> ActionSpace:
    """Measure the actions of responses, and write what decoders and encoders of actions read: `FOLDER/action.json`.

    The range of each dimension lies between two quantiles, so that a few wild actions do not widen it: those of
    OpenVLA, Kim et al., https://arxiv.org/abs/2406.09246.

    rows: with actions in their responses, all of equally many steps and dimensions.
    bins: of each dimension.
    quantiles: of each dimension, its low end and its high one.
    """
    data = read(rows) if isinstance(rows, str | Path) else rows
    modality, found, rates, first = registry.modality("action"), [], {}, None
    for one in data:
        for part in (part for response in one.responses for part in response.segments()):
            if part.modality != "action":
                continue
            content = modality.decode(part, ActionSettings())
            shape, first = tuple(content.tensor.shape), first or (tuple(content.tensor.shape), one.origin)
            if shape != first[0]:
                raise DataError(
                    "chunks of one model have equally many steps and dimensions",
                    where=str(one.origin or one.key),
                    got=f"{shape}, and {first[0]} in {first[1] or 'the first'}",
                    fix="cut them to one size, or remove the row",
                )
            rates.setdefault(content.rate, one.origin)
            found.append(content.tensor.double().numpy())
    if first is None:
        raise DataError("no response has actions", got=f"{len(data)} rows", fix="give rows whose responses do")
    if len(said := {rate: place for rate, place in rates.items() if rate is not None}) > 1:
        (one, here), (other, there), *_ = said.items()
        raise DataError(
            "actions of one model have one rate",
            where=str(there),
            got=f"{other:g} Hz, and {one:g} Hz in {here}",
            fix="resample them, or fit each robot by itself",
        )
    every = np.concatenate(found)  # n a
    low, high = np.quantile(every, quantiles[0], axis=0), np.quantile(every, quantiles[1], axis=0)
    narrow = _NARROW * np.maximum(1.0, np.abs(low))
    still = high - low < 2 * narrow
    middle = (low + high) / 2
    low, high = np.where(still, middle - narrow, low), np.where(still, middle + narrow, high)
    space = ActionSpace(
        steps=first[0][0], low=tuple(low.tolist()), high=tuple(high.tolist()), rate=next(iter(said), None), bins=bins
    )
    space.save(Path(folder))
    return space
