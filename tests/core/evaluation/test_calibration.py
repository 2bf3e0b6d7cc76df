"""Measures of agreement by hand, and by what they are defined as."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalign.errors import ShapeError
from modalign.evaluation.calibration import (
    Confusion,
    agreement,
    auroc,
    best_threshold,
    brier,
    calibration_error,
    confusion,
    reliability,
)
from modalign.evaluation.intervals import wilson

LISTS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), st.booleans()), min_size=1, max_size=30)


def tensors(pairs: list[tuple[float, bool]]) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor([float(pair[at]) for pair in pairs], dtype=torch.float64) for at in (0, 1))  # type: ignore[return-value]


def test_agreement_leaves_ties_out_and_has_wilson_s_interval() -> None:
    predicted = torch.tensor([0.9, 0.2, 0.6, 0.5, 0.7])
    said = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5])
    found = agreement(predicted, said)
    assert found is not None
    assert (found.value, found.count) == (0.5, 4)  # right, right, wrong, one half agrees with nobody
    assert (found.low, found.high) == wilson(0.5, 4)


def test_agreement_with_soft_labels_is_with_their_likelier_side() -> None:
    found = agreement(torch.tensor([0.6, 0.6]), torch.tensor([0.7, 0.3]))
    assert found is not None
    assert found.value == 0.5


def test_a_reliability_curve_has_a_point_for_each_bin_that_holds_something() -> None:
    points = reliability(torch.tensor([0.05, 0.15, 0.1, 0.95, 1.0]), torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]))
    assert [(round(point.low, 1), point.count) for point in points] == [(0.0, 1), (0.1, 2), (0.9, 2)]
    assert points[1].predicted == pytest.approx(0.125)
    assert points[1].said == 0.5
    assert points[2].high == 1.0


def test_the_calibration_error_is_the_weighted_distance_from_the_diagonal() -> None:
    predicted, said = torch.tensor([0.05, 0.15, 0.1, 0.95, 1.0]), torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    # (1 * |0.05 - 0| + 2 * |0.125 - 0.5| + 2 * |0.975 - 1|) / 5
    assert calibration_error(predicted, said) == pytest.approx((0.05 + 0.75 + 0.05) / 5, rel=1e-6)
    assert calibration_error(predicted, said, bins=1) == pytest.approx(abs(0.45 - 0.6), rel=1e-6)


def test_a_calibrated_model_has_a_small_error_and_one_too_sure_a_large_one() -> None:
    noise = torch.Generator().manual_seed(0)
    truth = torch.rand(20_000, generator=noise, dtype=torch.float64)
    said = (torch.rand(20_000, generator=noise, dtype=torch.float64) < truth).double()
    calibrated = calibration_error(truth, said)
    sure = calibration_error((truth > 0.5).double(), said)
    assert calibrated is not None
    assert calibrated < 0.015  # of ten bins of 2000: a standard error of 0.01 each
    assert sure == pytest.approx(0.25, abs=0.02)  # the mean of |p - round(p)|


def test_the_brier_score_is_the_mean_square() -> None:
    assert brier(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(1.25 / 3)


@given(LISTS)
@settings(max_examples=50, deadline=None)
def test_the_area_is_the_share_of_pairs_that_are_ranked_rightly_a_tie_being_half(
    pairs: list[tuple[float, bool]],
) -> None:
    found = auroc(*tensors(pairs))
    high, low = ([value for value, held in pairs if held is wanted] for wanted in (True, False))
    if not high or not low:
        assert found is None
        return
    wins = [1.0 if one > other else 0.5 if one == other else 0.0 for one in high for other in low]
    assert found is not None
    assert found.value == pytest.approx(sum(wins) / len(wins))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.count == len(pairs)


def test_the_area_s_interval_is_hanley_and_mcneil_s() -> None:
    predicted = torch.tensor([0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1])
    said = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    found = auroc(predicted, said)
    area = 11 / 12  # of 12 pairs only 0.4 is below 0.7
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 2 * (q1 - area**2) + 3 * (q2 - area**2)) / 12
    assert found is not None
    assert found.value == pytest.approx(area)
    assert found.low == pytest.approx(area - 1.959964 * math.sqrt(variance), rel=1e-6)
    assert found.high == 1.0


def test_the_interval_holds_the_true_area_about_as_often_as_it_says() -> None:
    noise = torch.Generator().manual_seed(1)
    true = 0.5 * (1 + math.erf(1.0 / 2))  # two normals of variance 1, one apart: Phi(1 / sqrt(2))
    held = 0
    for _ in range(300):
        said = (torch.arange(120) < 40).double()
        found = auroc(torch.randn(120, generator=noise, dtype=torch.float64) + said, said)
        assert found is not None
        held += found.low <= true <= found.high
    assert 0.91 < held / 300 < 0.985  # 0.95 and two and a half standard errors of 0.013, upwards


def test_confusion_counts_each_judgement_once() -> None:
    found = confusion(torch.tensor([0.9, 0.6, 0.5, 0.1, 0.2]), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]))
    assert found == Confusion(true_positive=1, false_positive=1, true_negative=1, false_negative=2)
    assert found.f1 == pytest.approx(2 / 5)
    assert confusion(torch.tensor([0.1]), torch.tensor([0.0])).f1 is None


@given(LISTS)
@settings(max_examples=50, deadline=None)
def test_the_best_threshold_has_the_largest_f1_of_all(pairs: list[tuple[float, bool]]) -> None:
    predicted, said = tensors(pairs)
    found = best_threshold(predicted, said)
    every = [confusion(predicted, said, threshold=at / 40).f1 for at in range(40)]
    if not said.any() or not predicted[predicted > 0].numel():
        assert found is None
        return
    assert found is not None
    threshold, f1 = found
    assert f1 == pytest.approx(max(one for one in every if one is not None))
    assert confusion(predicted, said, threshold=threshold).f1 == pytest.approx(f1)


def test_what_nobody_said_is_left_out() -> None:
    predicted, said = torch.tensor([0.9, 0.1, 0.3]), torch.tensor([1.0, math.nan, 0.0])
    kept = torch.tensor([0.9, 0.3]), torch.tensor([1.0, 0.0])
    for measure in (agreement, reliability, calibration_error, brier, auroc, confusion, best_threshold):
        assert measure(predicted, said) == measure(*kept)


def test_nothing_has_no_measure() -> None:
    none = torch.zeros(0)
    assert [measure(none, none) for measure in (agreement, calibration_error, brier, auroc, best_threshold)] == [
        None
    ] * 5
    assert reliability(none, none) == ()


def test_two_lists_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"both \"m\"; found: \(2,\) and \(3,\)"):
        brier(torch.zeros(2), torch.zeros(3))
