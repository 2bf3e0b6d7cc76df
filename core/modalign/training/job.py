"""A whole job from its config: the model, its reward heads, the data, the trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.config import ModelConfig
from modalign.data import prepare, read
from modalign.errors import ConfigError, ModelError
from modalign.loading import load
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.training.config import TrainConfig
from modalign.training.runfolder import RunFolder
from modalign.training.trainer import Trainer, TrainResult


def run(config: TrainConfig) -> TrainResult:
    """Train what a config says."""
    model = load(config.model)
    add_heads(model, config.objective, seed=config.seed)
    trainer = Trainer(
        model=model,
        objective=config.objective,
        data=read(config.data),
        eval_data=None if config.eval_data is None else read(config.eval_data),
        config=config,
    )
    return trainer.train()


def evaluate(config: TrainConfig, *, trained: Path | None = None) -> tuple[dict[str, float], int]:
    """Metrics of the objective over `config.data`, and how many samples they are over. Nothing is written.

    trained: a run's final model, whose run started from `config.model`; else `config.model` is what is evaluated.
    """
    source = ModelConfig(path=str(trained)) if trained is not None else config.model
    model = load(source)
    if (missing := [head for head in config.objective.needs.heads if head not in model.heads]) and trained is None:
        raise ModelError(
            f"{config.model.path} has no trained reward head {missing[0]!r}",
            got=f"heads: {', '.join(model.heads) or 'none'}",
            fix="evaluate a run of `modalign train reward`, or its final/ folder",
        )
    weights = None
    if "reference" in config.objective.needs.roles and model.assembly.adapters is None:
        if trained is None:
            raise ConfigError(
                "a whole model says nothing of what it was measured against",
                where="model",
                got=source.path,
                fix="evaluate the run folder that trained it: its config names the reference",
            )
        weights, model = model.state_dict(), load(config.model)
    samples = prepare(read(config.data), model.assembly.preparer, config.objective.needs, config.data)
    trainer = Trainer(
        model=model, objective=config.objective, data=samples, eval_data=samples, config=config, quiet=True
    )
    if weights is not None:  # the reference was copied when the trainer was made
        model.load_state_dict(weights)
    return trainer.evaluate(), len(samples)


def final_model(folder: Path) -> Path:
    """The finished model of a run folder."""
    found = RunFolder(folder).final
    if not found.is_dir():
        raise ConfigError(
            "this run has no final model yet",
            where=str(folder),
            fix=f"finish it: modalign train {RunFolder(folder).config} --resume-from-checkpoint auto",
        )
    return found


def add_heads(model: Model, objective: Objective, *, seed: int) -> None:
    """Give a model the reward heads that an objective needs and it has not: linear ones, from the run's seed."""
    from modalign.registry import registry

    missing = [name for name in objective.needs.heads if name not in model.heads]
    if missing and model.backbone is None:
        raise ModelError(
            f"{type(objective).__name__} needs a reward head, which reads the states of a backbone",
            got="a model without a backbone",
            fix="use a model with one",
        )
    for name in missing:
        assert model.backbone is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.heads[name] = registry.head("linear")(model.backbone.width, dimensions=(name,))
