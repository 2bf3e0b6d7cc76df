"""Pictures of judgements as inline SVG: reliability curves and heat maps; colours come from the page's CSS."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from modalign.evaluation.calibration import Reliability
from modalign.evaluation.intervals import wilson
from modalign.report.curves import ticks

_SIDE = 250  #: of a reliability curve
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 10, 10, 30
_BARS = 34  #: height of the histogram under it
_CELL, _ROW = 84, 26  #: width and height of a heat map's cell
_LETTER = 7.2  #: width of a letter of a label, roughly


def reliability_curve(points: Sequence[Reliability], *, low: float = 0.0, title: str = "") -> str:
    """A reliability curve: what was predicted across, what people said up, each with its 95 % interval.

    Under it how many predictions each point is made of. On the dashed diagonal a model means what it says.

    points: of `modalign.evaluation.calibration.reliability`; none draw nothing.
    low: where the lower axis starts; one half for the more probable of two.
    title: for readers that see no picture.
    """
    if not points:
        return ""
    width, height = _SIDE - _LEFT - _RIGHT, _SIDE - _TOP - _BOTTOM
    floor = _TOP + height

    def x(value: float) -> float:
        return _LEFT + width * (value - low) / (1 - low)

    def y(value: float) -> float:
        return _TOP + height * (1 - value)

    out = [_open(_SIDE, _SIDE + _BARS + 8, title)]
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_SIDE - _RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in ticks(low, 1.0):
        out.append(f'<text class="tick" x="{x(mark):.1f}" y="{floor + 17}" text-anchor="middle">{mark:g}</text>')
    out.append(f'<line class="level" x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    most = max(point.count for point in points)
    line = " ".join(f"{x(point.predicted):.1f},{y(point.said):.1f}" for point in points)
    out.append(f'<polyline class="line dpo" points="{line}"/>')
    bottom = _SIDE + _BARS
    for point in points:
        across, (least, largest) = x(point.predicted), wilson(min(1.0, max(0.0, point.said)), point.count)
        out.append(
            f'<line class="whisker" x1="{across:.1f}" x2="{across:.1f}" y1="{y(least):.1f}" y2="{y(largest):.1f}"/>'
        )
        out.append(f'<circle class="end dpo" cx="{across:.1f}" cy="{y(point.said):.1f}" r="3.6"/>')
        begin, end, tall = x(point.low), x(point.high), max(1.5, _BARS * point.count / most)
        out.append(
            f'<rect class="count" x="{begin + 1:.1f}" y="{bottom - tall:.1f}" width="{end - begin - 2:.1f}" '
            f'height="{tall:.1f}" rx="1.5"><title>{point.count}</title></rect>'
        )
    return "".join([*out, "</svg>"])


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    shares: Sequence[Sequence[float]],
    wrong: Sequence[Sequence[bool]],
    title: str = "",
) -> str:
    """A table of counts, each cell shaded by its share.

    rows, columns: their labels.
    counts: by row and column.
    shares: of the same shape, from 0 to 1.
    wrong: which cells are errors: they have a colour of their own.
    title: for readers that see no picture.
    """
    left = 14 + _LETTER * max(len(name) for name in rows)
    width, height = left + _CELL * len(columns) + 4, 28 + _ROW * len(rows) + 4
    out = [_open(round(width), height, title, style=f"max-width:{round(width * 1.15)}px")]
    for at, name in enumerate(columns):
        out.append(
            f'<text class="tick" x="{left + _CELL * (at + 0.5):.1f}" y="17" text-anchor="middle">{escape(name)}</text>'
        )
    for down, name in enumerate(rows):
        top = 28 + _ROW * down
        out.append(f'<text class="name" x="{left - 8:.1f}" y="{top + 17.5}" text-anchor="end">{escape(name)}</text>')
        for across, count in enumerate(counts[down]):
            share = shares[down][across]
            role, begin = "bad" if wrong[down][across] else "good", left + _CELL * across
            out.append(
                f'<rect class="heat {role}" x="{begin + 1:.1f}" y="{top + 1}" width="{_CELL - 2}" height="{_ROW - 2}" '
                f'rx="3" style="fill-opacity:{0.06 + 0.86 * share:.3f}"/>'
                f'<text class="value{" light" if share > 0.55 else ""}" x="{begin + _CELL / 2:.1f}" y="{top + 17.5}" '
                f'text-anchor="middle">{count}</text>'
            )
    return "".join([*out, "</svg>"])


def _open(width: int, height: int, title: str, *, style: str = "") -> str:
    said = f' style="{style}"' if style else ""
    label = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label}"{said}>'
