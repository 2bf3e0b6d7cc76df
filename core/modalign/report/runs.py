"""What a run folder says, as charts and tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modalign.errors import DataError
from modalign.objectives.base import Predictions
from modalign.report.curves import Chart, Line
from modalign.report.judged import of_predictions
from modalign.report.page import Case, Page
from modalign.training.storage.metricslog import read_metrics
from modalign.training.storage.predictions import Kept, kept
from modalign.training.storage.runfolder import RunFolder

#: Metrics worth a chart, in order, each with a line on how to read it; a run has some of them.
CHARTED: Mapping[str, str] = {
    "loss": "mean over the batch",
    "eval_loss": "mean over the evaluation data",
    "rewards/margins": "chosen minus rejected",
    "rewards/accuracies": "share of pairs whose chosen response has the higher reward",
    "eval_rewards/accuracies": "the same on the evaluation data",
    "rewards/chosen": "beta times the log-ratio of policy and reference",
    "rewards/rejected": "beta times the log-ratio of policy and reference",
    "logps/chosen": "log-likelihood of the chosen response",
    "logps/rejected": "log-likelihood of the rejected response",
    "accuracy": "share of judgements that the model gets right",
    "eval_accuracy": "the same on the evaluation data",
    "margin": "reward of the chosen minus reward of the rejected",
    "displacement/chosen": "how much larger its error is than the reference's, per dimension",
    "displacement/rejected": "the same of the rejected",
    "grad_norm": "before clipping",
}

AGREEMENT = "Agreement with people"
HOW_OFTEN = (
    "The share of pairs of which the model prefers the response that people prefer, with its 95 % interval; one half "
    "is chance."
)


def series(folder: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """Every metric of a run as (step, value), oldest first; a resumed run's later lines win."""
    path = RunFolder(folder).metrics_path
    if not path.is_file():
        raise DataError(
            "no metrics here", where=str(folder), got="no metrics.jsonl", fix="name the folder of a training run"
        )
    found: dict[str, dict[float, float]] = {}
    for record in read_metrics(path):
        for name, value in record.items():
            if name != "step":
                found.setdefault(name, {})[record["step"]] = value
    return {name: tuple(sorted(points.items())) for name, points in found.items()}


def chart(
    title: str, note: str, curves: Sequence[tuple[str, str, Path, str]], *, level: float | None = None
) -> Chart | None:
    """A chart of metrics of several runs; None where no run has its own.

    curves: label, role, run folder, metric.
    """
    lines = tuple(
        Line(label=label, role=role, points=points)
        for label, role, folder, metric in curves
        if (points := series(folder).get(metric))
    )
    return Chart(title=title, note=note, lines=lines, level=level) if lines else None


def of_run(folder: Path, cases: Sequence[Case] = ()) -> Page:
    """The report of one training run: what its last evaluation found, its last metrics, its curves, its settings.

    cases: prompts with what models answered; see `modalign.report.shown.before_and_after`.
    """
    found = series(folder)
    predictions = kept(folder)
    judged = of_predictions({} if predictions is None else predictions.by_name)
    charts = tuple(
        Chart(title=name, note=note, lines=(Line(label=name, role="dpo", points=found[name]),))
        for name, note in CHARTED.items()
        if name in found
    )
    steps = max((points[-1][0] for points in found.values()), default=0)
    last = tuple((name, f"{found[name][-1][1]:.4g}") for name in CHARTED if name in found)
    values = f"Last values: {', '.join(f'{name} {value}' for name, value in last[:4]) or 'none'}."
    return Page(
        title=folder.resolve().name,
        lead=f"{steps:g} steps. {judged.lead or values}",
        facts=() if predictions is None else _facts(predictions, steps),
        bars_title=AGREEMENT,
        bars_note=HOW_OFTEN,
        bars=judged.bars,
        tables=judged.tables,
        galleries=judged.galleries,
        charts=charts,
        cases_note="What the model that the run started from answers, and what it answers now, from the same seed.",
        cases=tuple(cases),
        settings=(("Run", settings(folder)), ("Last metrics", last)),
    )


def of_evaluation(
    predictions: Mapping[str, Predictions], *, title: str, samples: int, skipped: Mapping[str, int]
) -> Page:
    """The report of one evaluation of a reward model.

    title: what it was evaluated on.
    samples: rows of that.
    skipped: rows that were left out, by reason.
    """
    judged = of_predictions(predictions)
    left_out = tuple((f"Skipped: {reason}", f"{count:,}") for reason, count in skipped.items())
    return Page(
        title=title,
        lead=judged.lead,
        facts=(("Samples", f"{samples:,}"), ("Judgements", f"{_judgements(predictions):,}"), *left_out),
        bars_title=AGREEMENT,
        bars_note=HOW_OFTEN,
        bars=judged.bars,
        tables=judged.tables,
        galleries=judged.galleries,
    )


def _judgements(predictions: Mapping[str, Predictions]) -> int:
    return sum(len(one.said) for one in predictions.values())


def _facts(predictions: Kept, steps: float) -> tuple[tuple[str, str], ...]:
    when = "at the end" if predictions.step == steps else f"after {predictions.step:,} of {steps:,g} steps"
    return (
        ("Judgements", f"{_judgements(predictions.by_name):,}"),
        ("Of", f"{len(predictions.by_name)} kinds"),
        ("Evaluated", when),
    )


def settings(folder: Path) -> tuple[tuple[str, str], ...]:
    """The resolved config as flat (name, value), without what is unset; nothing where there is no config."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = RunFolder(folder).config
    if not path.is_file():
        return ()
    try:
        config = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise DataError(
            "the resolved config is no YAML", file=str(path), got=str(error), fix="restore it, or remove the file"
        ) from error
    return tuple(_flat(config)) if isinstance(config, Mapping) else ()


def _flat(config: Mapping[object, object], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            out.extend(_flat(value, f"{prefix}{name}."))
        elif value not in (None, [], False):
            out.append((f"{prefix}{name}", str(value)))
    return out
