"""What frozen parts give of all of a run's media, made before its first step; then their weights leave memory."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import cast

import torch

from modalign.errors import ConfigError, ModalignError, Preempted
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.roles import Decoder
from modalign.training.config import TrainingConfig
from modalign.training.loader import MicroBatch, Samples, load_steps
from modalign.training.parts import Parts
from modalign.training.plan import Plan
from modalign.training.progress import ProgressBar, counting

log = logging.getLogger(__name__)


def check_precompute(config: TrainingConfig, model: Model, objective: Objective) -> None:
    """Raise where nothing can be made ahead of a run that asks for it."""
    if not config.precompute_features:
        return
    if config.feature_cache is None:
        raise ConfigError(
            "what is made before the first step is kept in a folder, and none is named",
            where="feature_cache",
            got="none, with precompute_features",
            fix="set feature_cache to a folder with room for it, or leave precompute_features out",
        )
    if not _decoders(model):
        raise ConfigError(
            "no decoder of this model reads media with frozen parts alone",
            where="precompute_features",
            got=", ".join(f"{name}: {type(one).__name__}" for name, one in model.decoders.items()) or "no decoders",
            fix="leave it out: feature_cache keeps what frozen towers give when they first give it",
        )
    if objective.needs.pairing == "prompt":
        raise ConfigError(
            f"{type(objective).__name__} makes media while it trains, for which the frozen parts must stay",
            where="precompute_features",
            got="true",
            fix="leave it out",
        )


@torch.no_grad()
def precompute(parts: Parts, *, stopped: Callable[[], bool]) -> None:
    """Put all that the run will read into the feature cache, each process its part, and free what made it.

    stopped: whether this process was asked to stop; what was made until then is kept.
    """
    config, data = parts.config, parts.data
    _check_shared(parts)
    # mismatched responses are others in each epoch, so that they may be asked for in other sizes
    total = parts.plan.total if parts.objective.needs.mismatched else min(parts.plan.total, len(data))
    _read(parts, data, total, "encoding the training data", stopped)
    if parts.eval_data is not None:
        _read(parts, parts.eval_data, len(parts.eval_data), "encoding the evaluation data", stopped)
    parts.ranks.raise_together(None)  # what another process makes must be there before the first step
    decoders = _decoders(parts.model)
    for decoder in decoders:
        decoder.release()
    behind = parts.model.backbone is not None  # there each generator says by itself whether it is saved whole
    if parts.model.assembly.adapters is None or config.merge_adapter or behind:
        # what is saved at the end needs them: better no run than one that has nothing to show for it
        parts.ranks.on_main(lambda: _rehearse(decoders))
    log.info("features are in %s; what made them has left memory", config.feature_cache)


def restore(model: Model) -> None:
    """Have back what an earlier run released: a run begins with all of its model."""
    for decoder in _decoders(model):
        decoder.restore()


def _decoders(model: Model) -> list[Decoder]:
    every = (cast(Decoder, one) for one in model.decoders.values())
    return [one for one in every if one.precomputes]


def _read(parts: Parts, samples: Samples, total: int, what: str, stopped: Callable[[], bool]) -> None:
    """Let each decoder read the samples of this process; a problem of one process is raised by all."""
    ranks, config, decoders = parts.ranks, parts.config, _decoders(parts.model)
    plan = Plan(total=total, batch=1, world=ranks.world)
    steps = load_steps(
        samples, plan, parts.assembling, rank=ranks.rank, seed=config.seed, workers=config.dataloader_num_workers
    )
    quiet = not any(isinstance(one, ProgressBar) for one in parts.callbacks)
    log.info("%s: %d samples", what, total)
    with counting(total, what, quiet=quiet or not ranks.main) as progress, steps:
        for number, step in enumerate(steps):
            ranks.raise_together(step if isinstance(step, ModalignError) else _read_one(decoders, step))
            if float(ranks.add(torch.tensor(float(stopped()), device=ranks.device))):
                raise Preempted(
                    f"training was asked to stop before its first step, {what}",
                    got=f"{number + 1} of {plan.steps} done, and kept in the feature cache",
                    fix="run the same command again with resume_from_checkpoint=auto",
                )
            if progress is not None:
                progress(min((number + 1) * ranks.world, total))


def _read_one(decoders: list[Decoder], step: list[MicroBatch]) -> Exception | None:
    try:
        for micro in step:
            for decoder in decoders:
                decoder.precompute(micro.batch)
    except Exception as error:
        return error
    return None


def _check_shared(parts: Parts) -> None:
    """Raise unless every process sees one and the same folder."""
    ranks, folder = parts.ranks, parts.config.feature_cache
    assert folder is not None
    if ranks.world == 1:
        return
    probe = folder / f".shared-{ranks.gather(uuid.uuid4().hex)[0]}"
    ranks.on_main(lambda: (folder.mkdir(parents=True, exist_ok=True), probe.touch()))
    alone = None
    if not probe.exists():
        alone = ConfigError(
            "the processes do not share a feature cache",
            where="feature_cache",
            got=f"what the first process writes to {folder} is not there for process {ranks.rank}",
            fix="name a folder on storage that all machines share, or leave precompute_features out",
        )
    ranks.raise_together(alone)
    ranks.on_main(probe.unlink)


def _rehearse(decoders: list[Decoder]) -> None:
    """Load what was released once, and let it go again."""
    for decoder in decoders:
        decoder.restore(torch.device("cpu"))
        decoder.release()
