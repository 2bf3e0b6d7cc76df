"""Curves: round ticks, gaps where a value is no number, and SVG that parses."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from modalign.report.curves import Chart, Line, ticks


def chart(points, **settings):
    return Chart(title="loss <&>", note="", lines=(Line(label="a", role="dpo", points=tuple(points)),), **settings)


def parsed(svg):
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 0.69), (-3, 7), (0, 1e-9), (5, 5), (0, 0), (-1e6, 1e6), (0.6931, 0.6932)]
)
def test_ticks_are_ordered_and_enclose_the_values(low, high):
    marks = ticks(low, high)
    assert marks == sorted(set(marks))
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_a_curve_falls_where_its_values_fall():
    line = next(one for one in parsed(chart([(0, 2.0), (10, 1.0), (20, 0.0)]).svg) if one.tag == "polyline")
    across, down = zip(*(map(float, point.split(",")) for point in line.attrib["points"].split()), strict=True)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down)  # y grows downwards


def test_a_value_that_is_no_number_leaves_a_gap():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0), (5, 2.0)]
    assert sum(one.tag == "polyline" for one in parsed(chart(points).svg)) == 2


def test_nothing_finite_draws_nothing():
    assert chart([(0, math.nan)]).svg == ""


def test_one_point_and_a_level_far_away_stay_within_the_picture():
    for one in parsed(chart([(3, 1.0)], level=-50.0).svg):
        for name in ("cy", "y1", "y2", "y"):
            assert 0 <= float(one.attrib.get(name, 0)) <= 230


def test_a_title_cannot_break_out_of_its_attribute():
    drawn = Chart(title='"><script>', note="", lines=chart([(0, 1.0)]).lines).svg
    assert "<script" not in drawn
    assert parsed(drawn).attrib["aria-label"] == '"><script>'
