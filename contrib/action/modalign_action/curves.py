"""A chunk of actions as HTML: one small curve for each dimension.

t steps, a dimensions.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

_WIDE, _HIGH, _COLUMNS = 150, 60, 4  #: pixels of a curve's place; curves in a row
_EDGE: Final = 14  #: pixels above a curve, for its name
_POINTS: Final = 500  #: most of a curve


def curves(found: Tensor, rate: float | None) -> str:
    """A drawing that stands by itself, of a table ``t a``.

    rate: actions per second, if known.
    """
    steps, dimensions = found.shape
    shown = found[:: max(1, -(-steps // _POINTS))]
    time = f" in {steps / rate:.3g} s" if rate else ""
    said = f"{steps} actions of {dimensions} dimensions{time}"
    drawn = "".join(_curve(shown[:, at].tolist(), at) for at in range(dimensions))
    rows = -(-dimensions // _COLUMNS)
    wide, high = min(dimensions, _COLUMNS) * _WIDE, rows * _HIGH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" role="img" '
        f'font-family="sans-serif" font-size="9"><title>{said}</title>{drawn}</svg>'
    )


def _curve(values: list[float], at: int) -> str:
    left, top = at % _COLUMNS * _WIDE, at // _COLUMNS * _HIGH
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    across = (_WIDE - 8) / max(1, len(values) - 1)
    points = [
        f"{left + 4 + number * across:.1f},{top + _HIGH - 4 - (value - low) / span * (_HIGH - _EDGE - 6):.1f}"
        for number, value in enumerate(values)
    ]
    points = points * 2 if len(points) == 1 else points
    return (
        f'<rect x="{left + 1}" y="{top + 1}" width="{_WIDE - 2}" height="{_HIGH - 2}" fill="none" stroke="#ddd"/>'
        f'<text x="{left + 4}" y="{top + 11}" fill="#555">{at}: {low:.3g} to {high:.3g}</text>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#3367d6" stroke-width="1.5"/>'
    )
