"""Pairs ordered by a weighted sum of what people said by dimension: signs, swaps, ties, and what is left out."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.data import check, read
from modalign.data.ordering import EVEN, TIED, ordered, outvoted
from modalign.errors import ConfigError, DataError, Skipped
from modalign.testing import ask, say


def pair(**preferences: float) -> Comparison:
    return replace(Comparison.pair(ask("a"), say("first"), say("second")), preferences=preferences)


def first(comparison: Comparison) -> str:
    return str(next(comparison.chosen.parts()).value)


def test_the_sign_of_the_sum_orders_and_its_size_is_the_margin() -> None:
    for helpful, harmless in product((0.0, 0.5, 1.0), repeat=2):
        for weights in ({"helpful": 2.0, "harmless": 1.0}, {"helpful": 0.3, "harmless": 0.7}):
            # sum w (2p - 1) / sum w
            total = sum(w * (2 * p - 1) for w, p in zip(weights.values(), (helpful, harmless), strict=True)) / sum(
                weights.values()
            )
            if total == 0:
                with pytest.raises(Skipped, match=TIED):
                    ordered(pair(helpful=helpful, harmless=harmless), weights)
                continue
            found = ordered(pair(helpful=helpful, harmless=harmless), weights)
            assert first(found) == ("first" if total > 0 else "second")
            assert found.margin == pytest.approx(abs(total))
            # what people said goes with the responses it was said of
            assert found.preferences["helpful"] == (helpful if total > 0 else 1 - helpful)


def test_one_dimension_alone_is_that_dimensions_order() -> None:
    said = pair(helpful=1.0, harmless=0.0)
    assert first(ordered(said, {"helpful": 5.0})) == "first"
    assert first(ordered(said, {"harmless": 0.1})) == "second"
    assert ordered(said, {"harmless": 0.1}).margin == 1.0
    assert first(ordered(said, {"harmless": -1.0})) == "first"


def test_swapping_the_responses_changes_nothing() -> None:
    weights = {"helpful": 2.0, "harmless": 1.0}
    one, other = (
        ordered(pair(helpful=1.0, harmless=0.0), weights),
        ordered(pair(helpful=1.0, harmless=0.0).swap(), weights),
    )
    assert (first(one), one.margin, dict(one.preferences)) == (first(other), other.margin, dict(other.preferences))


def test_what_is_even_or_not_judged_is_left_out_by_reason() -> None:
    with pytest.raises(Skipped, match=EVEN):
        ordered(pair(helpful=1.0, harmless=0.0), {"helpful": 1.0, "harmless": 1.0})
    with pytest.raises(Skipped, match=EVEN):  # 0.1 + 0.2 - 0.3 is no preference
        ordered(pair(a=1.0, b=1.0, c=0.0), {"a": 0.1, "b": 0.2, "c": 0.3})
    with pytest.raises(Skipped, match=TIED):
        ordered(pair(helpful=0.5), {"helpful": 1.0})
    for missing in (pair(helpful=1.0), pair(helpful=1.0, harmless=float("nan"))):
        with pytest.raises(Skipped, match="no preference for harmless"):
            ordered(missing, {"helpful": 1.0, "harmless": 1.0})
    with pytest.raises(DataError, match="order the two responses of a pair; found: unpaired with 1"):
        ordered(Comparison.unpaired(ask("a"), say("b")), {"helpful": 1.0})


def test_a_dimension_that_was_outvoted_is_named() -> None:
    weights = {"helpful": 2.0, "harmless": 1.0}
    assert outvoted(ordered(pair(helpful=1.0, harmless=0.0), weights), weights) == ("harmless",)
    assert outvoted(ordered(pair(helpful=1.0, harmless=1.0), weights), weights) == ()
    assert outvoted(ordered(pair(helpful=1.0, harmless=0.5), weights), weights) == ()
    assert outvoted(ordered(pair(helpful=0.0), {"helpful": -1.0}), {"helpful": -1.0}) == ()


ROWS = [
    {"prompt": f"{number}", "chosen": "a", "rejected": "b", "preferences": said}
    for number, said in enumerate(
        (
            {"helpful": 1.0, "harmless": 1.0},
            {"helpful": 0.0, "harmless": 1.0},
            {"helpful": 0.5, "harmless": 0.5},
            {"helpful": 1.0},
        )
    )
]


def test_every_row_is_kept_or_counted(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    data = read(file, preference_weights={"helpful": 2, "harmless": 1})
    report = check(data)
    assert (report.good, report.rows, report.bad_rows) == (2, 4, ())
    assert report.skipped == {TIED: 1, "no preference for harmless": 1}
    assert report.warnings == ("1 pairs are ordered against harmless",)
    assert [str(next(data[number].chosen.parts()).value) for number in (0, 1)] == ["a", "b"]
    # rows in memory and comparisons too, and without weights the rows' own order
    assert read(ROWS, preference_weights={"helpful": 2, "harmless": 1})[1].margin == pytest.approx(1 / 3)
    assert read([read(ROWS)[1]], preference_weights={"helpful": 1})[0].chosen == read(ROWS)[1].rejected
    assert check(read(file)).warnings == ()


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": float("inf")}, {"a": "much"}])
def test_weights_that_weigh_nothing_are_refused(weights: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="preference_weights"):
        read(ROWS, preference_weights=weights)
    assert DataConfig(path="x").preference_weights is None
