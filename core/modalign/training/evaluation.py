"""The objective over all evaluation data, once."""

from __future__ import annotations

import torch

from modalign.draws import Draws
from modalign.errors import ModalignError
from modalign.training.loader import load_steps
from modalign.training.metrics import Sums, Window
from modalign.training.parts import Parts
from modalign.training.plan import Plan
from modalign.training.reference import evaluating, score_roles
from modalign.training.steps import take_loss


@torch.no_grad()
def evaluate_parts(parts: Parts) -> dict[str, float]:
    """Loss and metrics, weighted means over all samples and processes, under `eval_` names.

    The draws of noise are the same at every evaluation, so that two of them differ by the weights alone. Only batch
    statistics (KTO's z0) depend on the size of a batch.
    """
    config, ranks, data = parts.config, parts.ranks, parts.eval_data
    assert data is not None
    plan = Plan(total=len(data), batch=config.per_device_eval_batch_size, world=ranks.world)
    sums, draws = Sums(), Draws(seed=config.seed)
    steps = load_steps(
        data, plan, parts.assembling, rank=ranks.rank, seed=config.seed, workers=config.dataloader_num_workers
    )
    with parts.policy.prepared(), evaluating(parts.model):
        for step in steps:
            ranks.raise_together(step if isinstance(step, ModalignError) else None)
            for micro in step if isinstance(step, list) else ():
                batch = micro.batch.to(ranks.device)
                loss = take_loss(parts.objective, score_roles(parts.scorers, batch, draws), batch, ranks)
                sums.add("loss", loss.sum, loss.count)
                sums.extend(loss.metrics)
    return Window(ranks.total(sums.found)).means("eval_")
