"""What a reward model's predictions come to beside what people said, as bars, tables and pictures of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from modalign.evaluation.calibration import (
    agreement,
    auroc,
    best_threshold,
    brier,
    calibration_error,
    confusion,
    reliability,
)
from modalign.objectives.base import Predictions
from modalign.report.figures import heat_map, reliability_curve
from modalign.report.page import Bar, Cell, Gallery, Picture, Table

_BINS = 10  #: of a reliability curve
_RATES = 12  #: most different numbers people gave of which a table of predictions is drawn
_NOTHING = "–"


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """The parts of a page that are about predictions; what there is nothing for is empty.

    lead: the sentence that says how good they are.
    """

    lead: str = ""
    bars: tuple[Bar, ...] = ()
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()


def of_predictions(predictions: Mapping[str, Predictions]) -> Judged:
    """The parts of a page about these predictions."""
    of_kind = {
        kind: {name: one for name, one in predictions.items() if one.kind == kind and len(one.said)}
        for kind in ("preference", "label", "number")
    }
    found = [
        build(of_kind[kind])
        for kind, build in (("preference", _preferences), ("label", _labels), ("number", _numbers))
        if of_kind[kind]
    ]
    return Judged(
        lead=" ".join(one.lead for one in found if one.lead),
        bars=tuple(bar for one in found for bar in one.bars),
        tables=tuple(table for one in found for table in one.tables),
        galleries=tuple(gallery for one in found for gallery in one.galleries),
    )


def folded(predicted: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """How sure a model is of the response it prefers, and what people said of the same one.

    Which response of a pair comes first says nothing: often it is the one people preferred, and what they said is 1
    throughout.

    >>> [one.tolist() for one in folded(torch.tensor([0.75, 0.25]), torch.tensor([1.0, 1.0]))]
    [[0.75, 0.75], [1.0, 0.0]]
    """
    second = predicted < 0.5
    return torch.where(second, 1 - predicted, predicted), torch.where(second, 1 - said, said)


def _preferences(found: Mapping[str, Predictions]) -> Judged:
    bars: list[Bar] = []
    curves: list[Picture] = []
    for name, one in found.items():
        sure, right = folded(one.predicted, one.said)
        share = agreement(one.predicted, one.said)
        ties = int((one.said == 0.5).sum())
        if share is not None:
            note = f"{share.count:,} pairs" + (f"; {ties:,} tie{'s' * (ties > 1)} left out" if ties else "")
            bars.append(Bar(label=name, note=note, role="dpo", value=share.value, low=share.low, high=share.high))
        curve = reliability_curve(reliability(sure, right, bins=2 * _BINS), low=0.5, title=f"{name}: reliability")
        curves.append(Picture(title=name, note=_calibration(sure, right, bins=2 * _BINS), svg=curve))
    said = ", ".join(f"{bar.label} {_percent(bar.value)} ({_percent(bar.low)} to {_percent(bar.high)})" for bar in bars)
    note = (
        "Across, how sure the model is of the response it prefers; up, how often people prefer the same one, with 95 % "
        "intervals. On the dashed line it is as sure as it is right; below it, too sure. Bars count pairs."
    )
    return Judged(
        lead=f"Agreement with people: {said}." if bars else "",
        bars=tuple(bars),
        galleries=(Gallery(title="How sure, and how right", note=note, pictures=tuple(curves)),),
    )


def _labels(found: Mapping[str, Predictions]) -> Judged:
    lines: list[tuple[str | Cell, ...]] = []
    curves: list[Picture] = []
    areas: dict[str, Cell] = {}
    for name, one in found.items():
        area, held = auroc(one.predicted, one.said), int((one.said > 0.5).sum())
        if area is not None:
            areas[name] = Cell(value=area.value, low=area.low, high=area.high)
        threshold, best = best_threshold(one.predicted, one.said) or (None, None)
        share = agreement(one.predicted, one.said)
        numbers = (confusion(one.predicted, one.said).f1, best, threshold, None if share is None else share.value)
        lines.append((name, f"{held:,} of {len(one.said):,}", areas.get(name, _NOTHING), *map(_number, numbers)))
        curve = reliability_curve(reliability(one.predicted, one.said, bins=_BINS), title=f"{name}: reliability")
        curves.append(Picture(title=name, note=_calibration(one.predicted, one.said, bins=_BINS), svg=curve))
    table = Table(
        title="Labels",
        note="AUROC is the probability that something that carries the label is ranked above something that does not, "
        "with its 95 % interval; F1 and accuracy are of calling a label above one half. The best F1, and the threshold "
        "that gives it, are found on the same judgements and so flatter.",
        head=("", "carry it", "AUROC", "F1", "best F1", "at", "accuracy"),
        lines=tuple(lines),
    )
    called = Gallery(
        title="Called, and carried",
        note="Counts at a threshold of one half; shaded by the share of those that carry the label, and of those that "
        "do not. Errors have the second colour.",
        pictures=(Picture(title="", note="", svg=_confusions(found)),),
        columns=1,
    )
    note = (
        "Across, the predicted probability; up, how often the label is there, with 95 % intervals. On the dashed line "
        "a probability means what it says. Bars count predictions."
    )
    return Judged(
        lead=_spread(areas),
        tables=(table,),
        galleries=(called, Gallery(title="Calibration", note=note, pictures=tuple(curves), columns=4)),
    )


def _confusions(found: Mapping[str, Predictions]) -> str:
    counts: list[list[int]] = []
    shares: list[list[float]] = []
    for one in found.values():
        table = confusion(one.predicted, one.said)
        row = [table.true_positive, table.false_negative, table.true_negative, table.false_positive]
        halves = (max(1, row[0] + row[1]), max(1, row[2] + row[3]))
        counts.append(row)
        shares.append([count / halves[at // 2] for at, count in enumerate(row)])
    return heat_map(
        list(found),
        ("called", "missed", "left alone", "false alarm"),
        counts,
        shares=shares,
        wrong=[[False, True, False, True]] * len(counts),
        title="counts of each label, called and carried",
    )


def _numbers(found: Mapping[str, Predictions]) -> Judged:
    lines: list[tuple[str | Cell, ...]] = []
    maps: list[Picture] = []
    for name, one in found.items():
        errors = one.predicted - one.said
        mean, spread = errors.abs().mean().item(), errors.square().mean().sqrt().item()
        lines.append((name, f"{len(one.said):,}", f"{mean:.3f}", f"{spread:.3f}", f"{one.said.std(correction=0):.3f}"))
        if svg := _rates(name, one):
            maps.append(Picture(title=name, note="", svg=svg))
    table = Table(
        title="Numbers people gave",
        note="The mean absolute and the root mean squared error of what the model gives, beside how far people's "
        "numbers themselves lie from their mean.",
        head=("", "judgements", "mean error", "root mean square", "spread of people's"),
        lines=tuple(lines),
    )
    note = "Down, what people gave; across, what the model gives, rounded. Shaded by the share of each line."
    galleries = (Gallery(title="Given, and predicted", note=note, pictures=tuple(maps), columns=2),) if maps else ()
    return Judged(tables=(table,), galleries=galleries)


def _rates(name: str, one: Predictions) -> str:
    """A heat map of whole numbers that people gave; nothing where there are too many, or others."""
    low, high = int(one.said.min()), int(one.said.max())
    if not torch.equal(one.said, one.said.round()) or not 1 <= high - low < _RATES:
        return ""
    rates = range(low, high + 1)
    given = one.predicted.nan_to_num(0.0).round().clamp(low, high)
    counts = [[int(((one.said == said) & (given == rate)).sum()) for rate in rates] for said in rates]
    return heat_map(
        [f"{rate}" for rate in rates],
        [f"{rate}" for rate in rates],
        counts,
        shares=[[count / max(1, sum(row)) for count in row] for row in counts],
        wrong=[[said != rate for rate in rates] for said in rates],
        title=f"{name}: given and predicted",
    )


def _spread(areas: Mapping[str, Cell]) -> str:
    """The least and the largest area in words."""
    if not areas:
        return ""
    least = min(areas, key=lambda name: areas[name].value)
    most = max(areas, key=lambda name: areas[name].value)
    one = areas[least]
    said = f"AUROC {one.value:.3f} ({one.low:.3f} to {one.high:.3f}) of {least}"
    if len(areas) == 1:
        return f"{said}."
    lowest = min(cell.low for cell in areas.values())
    return (
        f"Labels: from {said} to {areas[most].value:.3f} of {most}; the lowest lower bound of {len(areas)} is "
        f"{lowest:.3f}."
    )


def _calibration(predicted: Tensor, said: Tensor, *, bins: int) -> str:
    error, score = calibration_error(predicted, said, bins=bins), brier(predicted, said)
    return "" if error is None or score is None else f"calibration error {error:.3f}, Brier {score:.3f}"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
