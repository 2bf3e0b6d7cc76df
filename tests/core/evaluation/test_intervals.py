"""Intervals of shares, and of the difference between two shares of the same trials."""

from __future__ import annotations

import math

import pytest

from modalign.evaluation.intervals import paired


def test_the_difference_is_that_of_the_shares_and_swapping_negates_it() -> None:
    before, after = [True, True, False, False, False], [True, False, True, True, False]
    difference, low, high = paired(before, after)
    assert difference == pytest.approx(0.2)  # 3 of 5 against 2 of 5
    # two gained and one lost of five: 1.96 sqrt((.4 + .2 - .2^2) / 5) = .656
    assert (low, high) == pytest.approx((0.2 - 0.656, 0.2 + 0.656), abs=1e-3)
    assert paired(after, before) == pytest.approx((-difference, -high, -low))


def test_what_does_not_change_has_no_spread_and_nothing_says_nothing() -> None:
    assert paired([True, False], [True, False]) == (0.0, 0.0, 0.0)
    difference, low, high = paired([], [])
    assert math.isnan(difference)
    assert (low, high) == (-1.0, 1.0)
