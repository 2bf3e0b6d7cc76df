"""Trains a model with an objective on data, and leaves a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import final

from pydantic import ValidationError

from modalign.caching.features import FeatureCache
from modalign.errors import ConfigError
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.training.callbacks import Callback
from modalign.training.checks import check_model, leave_out
from modalign.training.config import TrainingConfig
from modalign.training.dropout import disable_dropout, train_mode
from modalign.training.evaluation import Measured, measure
from modalign.training.heads import add_heads
from modalign.training.hub import check_hub
from modalign.training.loader import Assembling
from modalign.training.loop import Loop
from modalign.training.optimizer import make_optimizer
from modalign.training.parts import Parts
from modalign.training.plan import training_plan
from modalign.training.precompute import check_precompute, precompute, restore
from modalign.training.progress import ProgressBar
from modalign.training.ranks import Ranks, make_accelerator
from modalign.training.reference import POLICY, REFERENCE, Policy, Rollouts, Scorer, make_scorers
from modalign.training.remembered import Remembered
from modalign.training.samples import Source, prepare_samples
from modalign.training.session import Session, open_folder
from modalign.training.signals import Stop
from modalign.training.steps import Stepper
from modalign.training.tracking import make_trackers


@final
@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to.

    steps: optimizer steps of the run.
    metrics: the last ones of each name.
    folder: the run folder; the model is in its `final/`.
    """

    steps: int
    metrics: Mapping[str, float]
    folder: Path


@final
class Trainer:
    """Trains a model with an objective on data.

    model: changed in place: it gets the reward heads it lacks, what the objective does not train is frozen, and dropout
        is set to zero.
    objective: the loss.
    data, eval_data: what `modalign.read` takes or gives, or what is prepared already.
    config: settings; ``settings`` are single ones by name, which go before.
    callbacks: that watch.
    quiet: show no progress.

    >>> from tempfile import TemporaryDirectory
    >>> from modalign.objectives.dpo import DPO
    >>> from modalign.testing import toy_model, toy_pairs
    >>> with TemporaryDirectory() as folder:
    ...     settings = {"output_dir": f"{folder}/run", "max_steps": 1, "quiet": True}
    ...     result = Trainer(model=toy_model(), objective=DPO(), data=toy_pairs(), **settings).train()
    >>> round(result.metrics["loss"], 4)
    0.6931
    """

    def __init__(
        self,
        *,
        model: Model,
        objective: Objective,
        data: Source,
        eval_data: Source | None = None,
        config: TrainingConfig | None = None,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        **settings: object,
    ) -> None:
        config = _configure(config, settings)
        add_heads(model, objective, seed=config.seed)
        check_model(model, objective)
        check_hub(config)
        check_precompute(config, model, objective)
        restore(model)
        leave_out(model, objective)
        if config.disable_dropout:
            disable_dropout(model)
        model.memo.cache = None if config.feature_cache is None else FeatureCache(config.feature_cache)
        ranks = Ranks(make_accelerator(config.mixed_precision, model))
        watching: list[Callback] = [*callbacks]
        if ranks.main:
            watching += make_trackers(config.report_to)
            watching += [] if quiet else [ProgressBar()]
        workers = config.dataloader_num_workers
        prepared = prepare_samples(data, model, objective, workers=workers)
        policy = Policy(model, ranks.accelerator)
        self.parts = Parts(
            model=model,
            objective=objective,
            config=config,
            data=prepared,
            eval_data=None if eval_data is None else prepare_samples(eval_data, model, objective, workers=workers),
            assembling=Assembling(share=model.shares, pad=model.assembly.preparer.pad, objective=objective),
            plan=training_plan(config, samples=len(prepared), world=ranks.world),
            ranks=ranks,
            policy=policy,
            scorers=_scorers(policy, objective, config),
            callbacks=watching,
        )

    def train(self) -> TrainResult:
        """Train to the end, going on from a checkpoint where the config says so; the final model is in the run folder.

        A SIGTERM, SIGUSR1 or Ctrl-C ends it after the step: it saves, and raises `Preempted`.
        """
        parts = self.parts
        optimizer = make_optimizer(parts.model, parts.config)
        with open_folder(parts) as folder, Stop() as stop:
            session = Session(parts, folder, optimizer)
            session.resume()
            if parts.config.precompute_features:
                precompute(parts, stopped=lambda: stop.requested)
            session.tell("on_train_begin")
            try:
                with parts.policy.prepared():
                    train_mode(parts.model)
                    Loop(session, stopped=lambda: stop.requested).run(Stepper(parts, optimizer, folder.path))
                session.finish()
            finally:
                optimizer.zero_grad(set_to_none=True)
                session.tell("on_train_end", session.progress.metrics)
        progress = session.progress
        return TrainResult(steps=progress.step, metrics=MappingProxyType(progress.metrics), folder=folder.path)

    def evaluate(self) -> dict[str, float]:
        """The objective's loss and metrics over all evaluation data, under `eval_` names; nothing is written."""
        return dict(self.measure().metrics)

    def measure(self) -> Measured:
        """What `evaluate` gives, with what a reward model predicted of each judgement."""
        if self.parts.eval_data is None:
            raise ConfigError("there is no evaluation data", got="eval_data=None", fix="give the trainer eval_data")
        return measure(self.parts)


def _configure(config: TrainingConfig | None, settings: Mapping[str, object]) -> TrainingConfig:
    stated = config or TrainingConfig()
    if unknown := [name for name in settings if name not in type(stated).model_fields]:
        raise ConfigError(
            f"no setting {unknown[0]!r}",
            got=", ".join(unknown),
            fix=f"settings are {', '.join(sorted(type(stated).model_fields))}",
        )
    try:
        return type(stated).model_validate({**dict(stated), **settings})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"], where=".".join(str(part) for part in first["loc"]), got=repr(first["input"])
        ) from error


def _scorers(policy: Policy, objective: Objective, config: TrainingConfig) -> dict[str, Scorer]:
    """Whose scores the objective compares; the reference's are kept where the config says so."""
    scorers = make_scorers(policy, objective.needs.roles, config.reference)
    if (backprop := objective.backprop()) is not None:
        scorers[POLICY] = Rollouts(policy, backprop)
    if not config.cache_reference:
        return scorers
    if REFERENCE not in scorers:
        raise ConfigError(
            f"{type(objective).__name__} compares with no reference, so none can be kept",
            where="cache_reference",
            got="true",
            fix="leave it out",
        )
    if config.draws.times == "stratified":
        raise ConfigError(
            "times that are spread over a batch depend on the batch, so their scores cannot be kept",
            where="draws.times",
            got="stratified",
            fix="draw them uniform or logit_normal, or leave cache_reference out",
        )
    return scorers | {REFERENCE: Remembered(scorers[REFERENCE], policy)}
