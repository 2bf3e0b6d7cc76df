"""A whole job from its config: the data, the model, its reward heads, the trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from modalign.data import prepare, read
from modalign.data.data import Data
from modalign.data.prepared import Prepared
from modalign.errors import ConfigError, DataError, ModelError
from modalign.loading import claim, load
from modalign.model import Model
from modalign.objectives.base import Predictions
from modalign.training.checks import check_model
from modalign.training.config import TrainConfig
from modalign.training.heads import add_heads
from modalign.training.progress import counting
from modalign.training.storage.runfolder import RunFolder
from modalign.training.trainer import Trainer, TrainResult


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    metrics: by name.
    predictions: what a reward model predicted of what people said, by dimension or label.
    samples: they are over.
    skipped: how many rows were left out, by reason.
    """

    metrics: Mapping[str, float]
    predictions: Mapping[str, Predictions]
    samples: int
    skipped: Counter[str]


def run(config: TrainConfig) -> TrainResult:
    """Train what a config says."""
    sources = [None if one is None else read(one) for one in (config.data, config.eval_data)]  # quicker than a model
    for source in sources:
        if source is not None and source.config.on_bad_row == "error":
            _check_rows(source, config)
    model = load(config.model)
    add_heads(model, config.objective, seed=config.seed)
    check_model(model, config.objective)
    data, eval_data = (None if one is None else _prepare(one, model, config) for one in sources)
    return Trainer(model=model, objective=config.objective, data=data, eval_data=eval_data, config=config).train()


def evaluate(config: TrainConfig, *, trained: Path | None = None) -> Evaluation:
    """Metrics of the objective over `config.data`. Nothing is written.

    trained: a run's final model, whose run started from `config.model`; else `config.model` is what is evaluated.
    """
    data = read(config.data)
    model, weights = _start(config, trained)
    if missing := [head for head in config.objective.needs.heads if head not in model.heads]:
        raise ModelError(
            f"this model has no trained reward head {missing[0]!r}",
            where=config.model.path,
            got=f"heads: {', '.join(model.heads) or 'none'}",
            fix="evaluate a run of `modalign train reward`, or its final/ folder",
        )
    check_model(model, config.objective)
    samples = _prepare(data, model, config)
    settings: dict[str, object] = {"report_to": (), "push_to_hub": False, "resume_from_checkpoint": None}
    if model.assembly.adapters is None:
        settings["reference"] = "auto"  # of a run whose adapters were merged: its config may say they are switched off
    trainer = Trainer(
        model=model,
        objective=config.objective,
        data=samples,
        eval_data=samples,
        config=config.model_copy(update=settings),
        quiet=True,
    )
    # only now: what the run was measured against was copied when the trainer was made
    if unknown := model.load_state_dict(weights, strict=False).unexpected_keys:
        raise ModelError(
            "the final model is not of the model its run started from",
            where=str(trained),
            got=f"{len(unknown)} other weights: {', '.join(unknown[:3])}",
            fix=f"look at model.path of the run's config: {config.model.path}",
        )
    found = trainer.measure()
    return Evaluation(
        metrics={name.removeprefix("eval_"): value for name, value in found.metrics.items()},
        predictions=found.predictions,
        samples=len(samples),
        skipped=samples.skipped,
    )


def final_model(folder: Path) -> Path:
    """The finished model of a run folder."""
    found = RunFolder(folder).final
    if not found.is_dir():
        raise ConfigError(
            "this run has no final model yet",
            where=str(folder),
            got="no folder final/",
            fix=f"finish it: modalign train {RunFolder(folder).config} --resume_from_checkpoint auto",
        )
    return found


def _start(config: TrainConfig, trained: Path | None) -> tuple[Model, dict[str, Tensor]]:
    """A model, and the weights it gets once its reference was taken: the reference of a run is where it started."""
    compared = "reference" in config.objective.needs.roles
    if trained is None:
        model = load(config.model)
        if compared and model.assembly.adapters is None:
            raise ConfigError(
                "a whole model says nothing of what it was measured against",
                where="model.path",
                got=config.model.path,
                fix="evaluate the run folder that trained it, whose config names where it started",
            )
        return model, {}
    # loaded as the model it started from was, but that its adapters are its own
    finished = load(config.model.model_copy(update={"path": str(trained), "adapter": None}))
    if not compared:
        return finished, {}
    adapted = finished.assembly.adapters is not None
    weights: dict[str, Tensor] = {**(finished.trainable() if adapted else finished.state_dict())}
    del finished
    return load(config.model if adapted else config.model.model_copy(update={"adapter": None})), weights


def _check_rows(data: Data, config: TrainConfig) -> None:
    """Raise where a row would surely be refused, before the model is loaded."""
    if not config.model.decoders and not Path(config.model.path).is_dir():
        return  # an id on the hub, which tells nothing before it is loaded
    _, loader = claim(config.model)
    if (refuses := loader.refuses(config.model)) is None:
        return
    for number, row in enumerate(data.scan()):
        if not isinstance(row, DataError) and (error := refuses(row)) is not None:
            file, at = data.place(number)
            raise error.at(file=file, row=at)


def _prepare(data: Data, model: Model, config: TrainConfig) -> Prepared:
    needs, workers = config.objective.needs, config.dataloader_num_workers
    with counting(len(data), f"reading {Path(data.name).name}") as progress:
        return prepare(data, model.assembly.preparer, needs, data.config, progress, workers=workers)
