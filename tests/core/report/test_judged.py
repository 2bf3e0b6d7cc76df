"""What the report says of predictions is what the measures of the same arrays say, drawn where it belongs."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
import torch

from modalign.evaluation.calibration import Reliability, agreement, auroc, calibration_error, confusion, reliability
from modalign.objectives.base import Predictions
from modalign.report.figures import heat_map, reliability_curve
from modalign.report.judged import folded, of_predictions
from modalign.report.page import Cell


def one(kind: str, predicted: list[float], said: list[float]) -> Predictions:
    values = (torch.tensor(values, dtype=torch.float64) for values in (predicted, said))
    return Predictions(kind=kind, predicted=next(values), said=next(values))  # type: ignore[arg-type]


PAIRS = one("preference", [0.9, 0.8, 0.3, 0.6, 0.5], [1.0, 1.0, 1.0, 0.0, 0.5])
LABELS = one("label", [0.9, 0.7, 0.4, 0.2, 0.6, 0.1], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
RATES = one("number", [0.1, 1.2, 2.6, 2.4], [0.0, 1.0, 2.0, 3.0])


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


# --- preferences -------------------------------------------------------------------------------------------------


def test_agreement_has_its_interval_and_says_how_many_pairs_and_ties() -> None:
    (bar,) = of_predictions({"kindness": PAIRS}).bars
    share = agreement(PAIRS.predicted, PAIRS.said)
    assert share is not None
    assert (bar.value, bar.low, bar.high) == (share.value, share.low, share.high)
    assert bar.value == 0.5  # 0.9 and 0.8 agree; 0.3 and 0.6 do not; the tie is left out
    assert (bar.label, bar.note) == ("kindness", "4 pairs; 1 tie left out")


def test_which_response_comes_first_changes_nothing() -> None:
    swapped = one("preference", (1 - PAIRS.predicted).tolist(), (1 - PAIRS.said).tolist())
    assert [bar.value for bar in of_predictions({"a": PAIRS}).bars] == [
        bar.value for bar in of_predictions({"a": swapped}).bars
    ]
    for mine, theirs in zip(folded(PAIRS.predicted, PAIRS.said), folded(swapped.predicted, swapped.said), strict=True):
        assert torch.allclose(mine, theirs)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    # nine of ten at 0.9, all first responses the preferred ones: the error of the raw arrays would be 0.18
    predicted, said = torch.tensor([0.9] * 9 + [0.1], dtype=torch.float64), torch.ones(10).double()
    assert calibration_error(*folded(predicted, said), bins=20) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(predicted, said, bins=20) == pytest.approx(0.18)
    (gallery,) = of_predictions({"a": one("preference", predicted.tolist(), said.tolist())}).galleries
    assert gallery.pictures[0].note.startswith("calibration error 0.000")


# --- labels ------------------------------------------------------------------------------------------------------


def test_a_label_has_its_area_f1_threshold_and_counts() -> None:
    judged = of_predictions({"rude": LABELS})
    (line,) = judged.tables[0].lines
    area, table = auroc(LABELS.predicted, LABELS.said), confusion(LABELS.predicted, LABELS.said)
    assert area is not None
    assert line[:3] == ("rude", "3 of 6", Cell(value=area.value, low=area.low, high=area.high))
    # above one half: 0.9, 0.7 right, 0.6 wrong, 0.4 missed: 2 * 2 / (2 * 2 + 1 + 1) = 0.667
    assert line[3] == f"{table.f1:.3f}" == "0.667"
    # calling the four highest: 2 * 3 / (4 + 3) = 0.857, at (0.4 + 0.2) / 2
    assert line[4:6] == ("0.857", "0.300")
    counts = [text.text for text in parsed(judged.galleries[0].pictures[0].svg) if text.get("class", "")[:5] == "value"]
    assert counts == ["2", "1", "2", "1"]  # called, missed, left alone, false alarm


def test_a_label_that_nothing_carries_has_no_area_and_breaks_nothing() -> None:
    judged = of_predictions({"never": one("label", [0.2, 0.1], [0.0, 0.0])})
    (line,) = judged.tables[0].lines
    assert line[:6] == ("never", "0 of 2", "–", "–", "–", "–")
    assert judged.lead == ""


def test_the_lead_names_the_worst_label() -> None:
    good = one("label", [0.9, 0.8, 0.2, 0.1], [1.0, 1.0, 0.0, 0.0])
    assert "from AUROC 0.889" in of_predictions({"good": good, "worse": LABELS}).lead  # 8 of 9 orders are right
    assert "of worse to 1.000 of good" in of_predictions({"good": good, "worse": LABELS}).lead


# --- numbers -----------------------------------------------------------------------------------------------------


def test_numbers_have_errors_and_a_table_of_rates() -> None:
    judged = of_predictions({"beauty": RATES})
    (line,) = judged.tables[0].lines
    assert line[:3] == ("beauty", "4", "0.375")  # (0.1 + 0.2 + 0.6 + 0.6) / 4
    cells = [text.text for text in parsed(judged.galleries[0].pictures[0].svg) if text.get("class", "")[:5] == "value"]
    # given 0 1 2 3: predicted 0, 1, 3 and 2 after rounding
    assert cells == ["1", "0", "0", "0", "0", "1", "0", "0", "0", "0", "0", "1", "0", "0", "1", "0"]


@pytest.mark.parametrize("said", [[0.5, 1.5], [0.0, 99.0], [2.0, 2.0]])
def test_numbers_that_are_no_rates_have_no_table_of_rates(said: list[float]) -> None:
    assert of_predictions({"a": one("number", [1.0, 2.0], said)}).galleries == ()


# --- pictures ----------------------------------------------------------------------------------------------------


def test_a_curve_on_the_diagonal_is_drawn_on_it() -> None:
    points = [
        Reliability(low=at / 10, high=(at + 1) / 10, predicted=at / 10 + 0.05, said=at / 10 + 0.05, count=10)
        for at in range(10)
    ]
    drawn = parsed(reliability_curve(points))
    (level,) = (one for one in drawn if one.get("class") == "level")
    x1, y1, x2, y2 = (float(level.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
    dots = [one for one in drawn if one.tag == "circle"]
    assert len(dots) == 10
    for dot in dots:
        x, y = float(dot.attrib["cx"]), float(dot.attrib["cy"])
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.2)


def test_nothing_predicted_draws_nothing() -> None:
    assert reliability_curve(reliability(torch.zeros(0), torch.zeros(0))) == ""
    assert of_predictions({}) == of_predictions({"a": one("label", [], [])})


def test_a_heat_map_is_as_dark_as_its_shares_and_marks_errors() -> None:
    drawn = parsed(heat_map(["a"], ["right", "wrong"], [[9, 1]], shares=[[0.9, 0.1]], wrong=[[False, True]]))
    first, second = (one for one in drawn if one.tag == "rect")
    assert (first.attrib["class"], second.attrib["class"]) == ("heat good", "heat bad")
    opacity = [float(re.findall(r"fill-opacity:([\d.]+)", one.attrib["style"])[0]) for one in (first, second)]
    assert opacity[0] > 3 * opacity[1]
