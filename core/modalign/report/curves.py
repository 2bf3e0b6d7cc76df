"""Curves of a run's metrics, drawn as inline SVG: no script, no font, nothing from a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import final

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 30


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    label: what the legend calls it.
    role: CSS class that colours it.
    points: (step, value), in order; values that are no finite number leave a gap.
    """

    label: str
    role: str
    points: tuple[tuple[float, float], ...]


@final
@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves that share their axes.

    title: above it.
    note: one line on how to read it.
    lines: at least one with a finite point.
    level: a value to mark with a dashed line, such as the loss of an untrained pair.
    """

    title: str
    note: str
    lines: tuple[Line, ...]
    level: float | None = None

    @property
    def svg(self) -> str:
        """The chart as an SVG element."""
        return draw(self)


def draw(chart: Chart) -> str:
    """A chart as SVG; colours come from the page's CSS."""
    finite = [point for line in chart.lines for point in line.points if math.isfinite(point[1])]
    if not finite:
        return ""
    values = [value for _, value in finite] + ([] if chart.level is None else [chart.level])
    marks = ticks(min(values), max(values))
    low, high = min([marks[0], *values]), max([marks[-1], *values])
    last = max([1.0, *(step for step, _ in finite)])

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / ((high - low) or 1.0)

    out = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title, quote=True)}">'
    ]
    for mark in marks:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 7}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in ticks(0, last, count=4):
        if mark <= last:
            out.append(f'<text class="tick" x="{x(mark):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{mark:g}</text>')
    if chart.level is not None:
        at = y(chart.level)
        out.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    for line in chart.lines:
        for piece in _pieces(line.points):
            path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in piece)
            out.append(f'<polyline class="line {line.role}" points="{path}"/>')
        ends = [point for point in line.points if math.isfinite(point[1])]
        if ends:
            out.append(f'<circle class="end {line.role}" cx="{x(ends[-1][0]):.1f}" cy="{y(ends[-1][1]):.1f}" r="3.5"/>')
    return "".join([*out, "</svg>"])


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about ``count`` steps.

    >>> ticks(0.1, 0.69)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    span = high - low
    if span <= 0 or not math.isfinite(span):
        span = abs(low) or 1.0
        low, high = low - span / 2, low + span / 2
        span = high - low
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first, final_ = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, final_ + 1)]


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Runs of finite points."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
