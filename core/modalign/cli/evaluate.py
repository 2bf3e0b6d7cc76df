"""`modalign evaluate RUN --data D`, or `modalign evaluate OBJECTIVE --model M --data D`."""

from __future__ import annotations

import json as encoder
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from modalign.cli.train import configure
from modalign.errors import ConfigError
from modalign.evaluation.intervals import wilson

if TYPE_CHECKING:
    from modalign.training.job import Evaluation

_SHARES = ("accuracy", "accuracies")  #: metrics that are shares of the samples
_BOUNDS = ("_low", "_high")  #: of an interval that was measured with its metric


def evaluate(
    target: str,
    /,
    *tokens: Annotated[str, Parameter(allow_leading_hyphen=True)],
    json: bool = False,
    report: Path | None = None,
) -> int:
    """Measure a model with an objective, on preference data: loss, rewards, accuracy with its 95 % interval.

    modalign evaluate runs/dpo --data test.jsonl

    Parameters
    ----------
    target
        A run folder (its objective and its final model are used), an objective's name, or a config file.
    tokens
        Settings, as `modalign train` takes them: --model PATH, --data PATH, --objective.beta 0.2. Of a run's own data
        settings none are taken but those of its eval_data, where no --data is given.
    json
        Print JSON instead of a table.
    report
        An HTML file to write what a reward model predicted to: agreement, calibration, labels and errors as pictures.
    """
    from modalign.training.job import evaluate as measure
    from modalign.training.job import final_model

    folder = Path(target)
    flags = {token.partition("=")[0] for token in tokens}
    # a folder may be called `dpo`: with a model of its own, the word is the objective
    is_run = (folder / "config.yaml").is_file() and not (target.isidentifier() and flags & {"--model", "--model.path"})
    if folder.is_dir() and not is_run and not target.isidentifier():
        raise ConfigError(
            "this folder is no run",
            where=target,
            got="no config.yaml",
            fix=f"name the run's own folder; of a model: modalign evaluate OBJECTIVE --model {target} --data PATH",
        )
    given = bool(flags & {"--data", "--data.path"})

    def other_data(document: dict[str, object]) -> None:
        """What limits or cuts training data must not quietly do so to the data of a test."""
        document.pop("data", None)
        held_out = document.pop("eval_data", None)
        if held_out is not None and not given:
            document["data"] = held_out

    config = configure(str(folder / "config.yaml") if is_run else target, tokens, edit=other_data)
    if config is None:
        return 0
    trained = final_model(folder) if is_run else None
    found = measure(config, trained=trained)
    intervals = _intervals(found.metrics, found.samples)
    if report is not None:
        _report(report, config.data.path, found)
    if json:
        said = {
            "model": str(trained or config.model.path),
            "data": config.data.path,
            "samples": found.samples,
            "skipped": dict(found.skipped),
            "metrics": dict(found.metrics),
            "intervals_95": intervals,
        }
        print(encoder.dumps(said, indent=2))
        return 0
    skipped = "".join(f", {count} skipped: {reason}" for reason, count in found.skipped.items())
    print(f"{trained or config.model.path} on {found.samples} samples of {config.data.path}{skipped}")
    for name, value in found.metrics.items():
        if name.endswith(_BOUNDS):
            continue
        low, high = intervals.get(name, (None, None))
        tail = "" if low is None else f"  95 % interval {low:.3f} to {high:.3f}"
        print(f"  {name:20} {value:10.4f}{tail}")
    return 0


def _report(file: Path, data: str, found: Evaluation) -> None:
    if not found.predictions:
        raise ConfigError(
            "a report is made of what a reward model predicted",
            where="--report",
            got="an objective that predicts nothing",
            fix="leave it out; modalign report RUN draws the curves of a run",
        )
    from modalign.report import of_evaluation, write

    write(of_evaluation(found.predictions, title=Path(data).name, samples=found.samples, skipped=found.skipped), file)


def _intervals(metrics: Mapping[str, float], samples: int) -> dict[str, tuple[float, float]]:
    """A 95 % interval of each share: the one that was measured with it, else Wilson's over the samples."""
    low, high = _BOUNDS
    found = {
        name: (metrics[name + low], metrics[name + high])
        for name in metrics
        if name + low in metrics and name + high in metrics
    }
    measured = Counter(name.partition("/")[0] for name in found)
    for name, value in metrics.items():
        # where a share is measured by several dimensions, the one over all of them has not one judgement per sample
        if name.rpartition("/")[2] in _SHARES and name not in found and measured[name] < 2:
            found[name] = wilson(value, samples)
    return found
