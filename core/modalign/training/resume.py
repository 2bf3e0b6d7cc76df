"""What a checkpoint holds of a run, and how a run takes it back."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast, final

import torch
from torch import Tensor
from torch.optim import AdamW

from modalign.caching.fingerprint import fingerprint
from modalign.errors import CheckpointError
from modalign.model import Model
from modalign.training.average import Average
from modalign.training.config import TrainingConfig
from modalign.training.metrics import Total, Window
from modalign.training.parts import Parts
from modalign.training.ranks import Json, Ranks
from modalign.training.samples import data_digest
from modalign.training.storage.rng import rng_state, set_rng_state
from modalign.training.storage.state import TrainState

log = logging.getLogger(__name__)

# Settings that a resumed run may change: where things go, what is written when, and how a step is split. How long it
# is may change too, so that a run can be made longer.
_FREE = frozenset(
    {
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "report_to", "run_name", "logging_steps"),
        *("eval_steps", "save_steps", "save_total_limit", "merge_adapter", "push_to_hub", "hub_model_id"),
        *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        *("dataloader_num_workers", "num_train_epochs", "max_steps", "feature_cache", "precompute_features"),
    }
)


@final
@dataclass(kw_only=True)
class Progress:
    """How far a run is.

    step: optimizer steps done.
    tokens: that the backbone has read, over all processes.
    evaluated: the step of the last evaluation, 0 before the first.
    window: what was measured since metrics were last written.
    metrics: the last ones of each name.
    """

    step: int = 0
    tokens: int = 0
    evaluated: int = 0
    window: Window = field(default_factory=Window)
    metrics: dict[str, float] = field(default_factory=dict)


def digests(parts: Parts) -> dict[str, str]:
    """What a run stands on, by name: a checkpoint is refused by a run that stands on something else."""
    config, objective, model = parts.config, parts.objective, parts.model
    settings = config.model_dump(mode="json", include=set(TrainingConfig.model_fields) - _FREE)
    frozen = {name: value for name, value in model.named_parameters() if not value.requires_grad}
    shapes = {name: [str(value.dtype), *value.shape] for name, value in model.trainable().items()}
    return {
        **{name: json.dumps(value) for name, value in settings.items()},
        "objective": f"{type(objective).__name__} {objective.model_dump_json()}",
        "data": data_digest(parts.data),
        "comparisons per step": str(parts.plan.together),
        "trained weights (names and shapes)": hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest(),
        "frozen weights": fingerprint(frozen),
    }


def capture(
    parts: Parts, optimizer: AdamW, average: Average | None, progress: Progress, stands_on: Mapping[str, str]
) -> TrainState:
    """The state of a run between two steps. Every process takes part; the first one's is whole."""
    ranks, plan = parts.ranks, parts.plan
    # the random state of each process, one row each; gathered by all, and put on disk by the first
    random = {name: _rows(value, ranks) for name, value in rng_state().items()}
    scaler = ranks.accelerator.scaler
    data: dict[str, Json] = {
        "tokens": progress.tokens,
        "evaluated": progress.evaluated,
        "window": {name: list(pair) for name, pair in progress.window.totals.items()},
        "metrics": dict(progress.metrics),
        "scaler": None if scaler is None else dict(scaler.state_dict()),
    }
    return TrainState(
        step=progress.step,
        position=min(progress.step * plan.together, plan.total),
        tensors={name: value.detach().cpu().contiguous() for name, value in _named(parts, optimizer, average).items()}
        if ranks.main
        else {},
        data=data,
        rng=random,
        world_size=ranks.world,
        digests=dict(stands_on),
    )


def restore(
    parts: Parts, optimizer: AdamW, average: Average | None, state: TrainState, stands_on: Mapping[str, str]
) -> Progress:
    """Take a checkpoint back: weights, their average, moments, what the reference keeps, and how far the run was."""
    ranks, scorers, plan = parts.ranks, parts.scorers, parts.plan
    state.refuse_other(stands_on)
    missed = state.step * plan.together - state.position
    if missed and plan.steps > state.step and ranks.main:
        log.warning(
            "step %d was the last of a shorter run and %d comparison(s) short: the run goes on without those, unlike "
            "one that was this long from the start; resume from an earlier checkpoint to have that one",
            state.step,
            missed,
        )
    _fill_moments(parts.model, optimizer, state)
    wanted = _named(parts, optimizer, average)
    if set(wanted) != set(state.tensors):
        differ = sorted(set(wanted) ^ set(state.tensors))
        raise CheckpointError(
            "the checkpoint holds other tensors than this run has",
            got=", ".join(differ[:5]),
            fix="use the versions and settings that it was written with",
        )
    for role, scorer in scorers.items():
        scorer.load({name: state.tensors[f"{role}.{name}"] for name in scorer.tensors()})
    with torch.no_grad():
        for name, value in wanted.items():
            if not name.startswith(tuple(f"{role}." for role in scorers)):
                value.copy_(state.tensors[name])
    if len(next(iter(state.rng.values()), torch.zeros(0))) == ranks.world:
        set_rng_state(state.rng, rank=ranks.rank)
    data = cast(Mapping[str, Json], state.data)
    if ranks.accelerator.scaler is not None and isinstance(data["scaler"], dict):
        ranks.accelerator.scaler.load_state_dict(data["scaler"])
    return Progress(
        step=state.step,
        tokens=cast(int, data["tokens"]),
        evaluated=cast(int, data["evaluated"]),
        window=Window(cast(dict[str, Total], data["window"])),
        metrics=cast(dict[str, float], dict(cast(Mapping[str, Json], data["metrics"]))),
    )


def _named(parts: Parts, optimizer: AdamW, average: Average | None) -> dict[str, Tensor]:
    """Every tensor that changes, by a flat name: trained weights, buffers, moments, and what the scorers keep."""
    model = parts.model
    trained = model.trainable()
    found: dict[str, Tensor] = {f"model.{name}": value for name, value in trained.items()}
    kept = model.state_dict(keep_vars=True).keys()  # of the buffers, those that are no more than a cache are left out
    found |= {f"buffer.{name}": value for name, value in model.named_buffers() if name in kept}
    for name, parameter in trained.items():
        for key, value in optimizer.state[parameter].items():
            found[f"optimizer.{name}.{key}"] = value
    if average is not None:
        found |= {f"average.{name}": value for name, value in average.tensors.items()}
    for role, scorer in parts.scorers.items():
        found |= {f"{role}.{name}": value for name, value in scorer.tensors().items()}
    return found


def _fill_moments(model: Model, optimizer: AdamW, state: TrainState) -> None:
    """Moments as they are before AdamW's first step, so that there is something to copy into.

    Only those that the checkpoint has: AdamW makes a parameter's when it first has a gradient, which the parameters of
    a medium that no sample has shown yet have not had.
    """
    optimizer.state.clear()
    for name, parameter in model.trainable().items():
        if f"optimizer.{name}.exp_avg" in state.tensors:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if optimizer.defaults["fused"] else "cpu"),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }


def _rows(value: Tensor, ranks: Ranks) -> Tensor:
    rows = ranks.accelerator.gather(value[None].to(ranks.device)) if ranks.world > 1 else value[None]
    assert isinstance(rows, Tensor)
    return rows.cpu()
