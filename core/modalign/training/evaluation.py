"""The objective over all evaluation data, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, final

import torch

from modalign.draws import Draws
from modalign.errors import ModalignError
from modalign.evaluation.calibration import agreement, auroc, best_threshold, brier, calibration_error, confusion
from modalign.objectives.base import Predictions
from modalign.training.loader import load_steps
from modalign.training.metrics import Sums, Window
from modalign.training.parts import Parts
from modalign.training.plan import Plan
from modalign.training.ranks import Json, Ranks
from modalign.training.reference import evaluating, score_roles
from modalign.training.steps import take_loss

_PREFIX = "eval_"


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an evaluation found.

    metrics: by name, under `eval_` names.
    predictions: what a reward model predicted of what people said, by dimension or label, each judgement once.
    """

    metrics: Mapping[str, float]
    predictions: Mapping[str, Predictions]


@torch.no_grad()
def measure(parts: Parts) -> Measured:
    """Loss and metrics, weighted means over all samples and processes, and what a reward model predicted.

    The draws of noise are the same at every evaluation, so that two of them differ by the weights alone. Only batch
    statistics (KTO's z0) depend on the size of a batch.
    """
    config, ranks, data = parts.config, parts.ranks, parts.eval_data
    assert data is not None
    plan = Plan(total=len(data), batch=config.per_device_eval_batch_size, world=ranks.world)
    sums, draws, found = Sums(), Draws.of(config.draws, seed=config.seed, dropout=False), _Found()
    steps = load_steps(
        data, plan, parts.assembling, rank=ranks.rank, seed=config.seed, workers=config.dataloader_num_workers
    )
    memo = parts.model.memo
    with parts.policy.prepared(), evaluating(parts.model), steps:
        for step in steps:
            ranks.raise_together(step if isinstance(step, ModalignError) else None)
            for micro in step if isinstance(step, list) else ():
                batch = micro.batch.to(ranks.device)
                with memo.remembering():
                    scores = score_roles(parts.scorers, batch, draws)
                loss = take_loss(parts.objective, scores, batch, ranks)
                sums.add("loss", loss.sum, loss.count)
                sums.extend(loss.metrics)
                found.extend(parts.objective.predictions(scores, batch.targets))
    memo.take()  # they are of no training step
    means = Window(ranks.total(sums.found)).means(_PREFIX)
    predictions = found.gather(ranks)
    exact = {f"{_PREFIX}{name}": value for name, value in prediction_metrics(predictions).items()}
    return Measured(metrics=means | exact, predictions=predictions)


def prediction_metrics(predictions: Mapping[str, Predictions]) -> dict[str, float]:
    """Measures of predictions over a whole data set, every judgement counted once whatever its weight.

    Of a preference: `accuracy` with its interval, `ece`, `brier`. Of a label also `auroc` with its interval, `f1` at
    one half, and `best_f1` at `threshold`. Of a number: `mae` and `rmse`. What is undefined (an AUROC without a
    positive) is left out.
    """
    found: dict[str, float | None] = {}
    for name, one in predictions.items():
        if one.kind == "number":
            errors = one.predicted - one.said
            found[f"mae/{name}"] = errors.abs().mean().item() if len(errors) else None
            found[f"rmse/{name}"] = errors.square().mean().sqrt().item() if len(errors) else None
            continue
        estimates = {"accuracy": agreement(one.predicted, one.said)}
        if one.kind == "label":
            estimates["auroc"] = auroc(one.predicted, one.said)
            found[f"f1/{name}"] = confusion(one.predicted, one.said).f1
            threshold, f1 = best_threshold(one.predicted, one.said) or (None, None)
            found |= {f"threshold/{name}": threshold, f"best_f1/{name}": f1}
        for measure_, estimate in estimates.items():
            if estimate is not None:
                found[f"{measure_}/{name}"] = estimate.value
                found[f"{measure_}/{name}_low"], found[f"{measure_}/{name}_high"] = estimate.low, estimate.high
        found[f"ece/{name}"] = calibration_error(one.predicted, one.said)
        found[f"brier/{name}"] = brier(one.predicted, one.said)
    return {name: value for name, value in found.items() if value is not None}


@final
class _Found:
    """The predictions of one process, as they come."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Predictions]] = {}

    def extend(self, predictions: Mapping[str, Predictions]) -> None:
        for name, one in predictions.items():
            self.parts.setdefault(name, []).append(one)

    def gather(self, ranks: Ranks) -> dict[str, Predictions]:
        """Those of all processes, in order of rank; JSON says a float64 to its last digit."""
        own: dict[str, Json] = {
            name: [parts[0].kind, *(_column(parts, side) for side in ("predicted", "said"))]
            for name, parts in self.parts.items()
        }
        every = [cast("dict[str, list[Json]]", one) for one in ranks.gather(own)]
        found: dict[str, Predictions] = {}
        for name in dict.fromkeys(name for one in every for name in one):
            said = [one[name] for one in every if name in one]
            predicted, judged = (
                torch.tensor([value for one in said for value in cast("list[float]", one[at])], dtype=torch.float64)
                for at in (1, 2)
            )
            found[name] = Predictions(kind=said[0][0], predicted=predicted, said=judged)  # pyright: ignore[reportArgumentType]
        return found


def _column(parts: list[Predictions], side: str) -> list[Json]:
    return [value for one in parts for value in cast(torch.Tensor, getattr(one, side)).double().cpu().tolist()]
