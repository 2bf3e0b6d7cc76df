"""Nothing stays behind when a batch moves: torch's `meta` device stands in for one that this machine may not have.

It computes shapes and no numbers, and refuses to mix with tensors of the CPU as a GPU does.
"""

import pytest
import torch

from modalign.assembler import assemble
from modalign.batch import Batch
from modalign.data import prepare, read
from modalign.draws import Draws
from modalign.model import Model
from modalign.objectives import DPO, IPO, KTO, ORPO, SFT, BradleyTerry, Objective, SimPO
from modalign.scores import ALL_KINDS, Scores
from modalign.testing import toy_model, toy_pairs
from modalign.training.metrics import Sums

OBJECTIVES = (SFT(), DPO(), IPO(), KTO(), SimPO(), ORPO(), BradleyTerry())


def moved(objective: Objective) -> tuple[Model, Batch]:
    model = toy_model(head=True)
    blobs = objective.needs.kinds == ALL_KINDS
    data = prepare(read(toy_pairs(4, blobs=blobs)), model.assembly.preparer, objective.needs)
    batch = assemble([data.sample(position, 0) for position in range(4)], share=True, units=objective.needs.units)
    return model.to("meta"), batch.to("meta")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: type(one).__name__)
def test_scores_loss_and_metrics_are_where_the_model_is(objective: Objective) -> None:
    model, batch = moved(objective)
    scores: Scores = model(batch, Draws())
    by_role: dict[str, Scores] = dict.fromkeys(objective.needs.roles, scores)
    loss = objective(by_role, batch.targets, objective.statistics(by_role, batch.targets))
    loss.sum.backward()
    sums = Sums()
    sums.add("loss", loss.sum, loss.count)
    sums.extend(loss.metrics)
    assert {value.device.type for value in sums.found.values()} == {"meta"}
    assert scores.counts.is_meta
    assert any(value.grad is not None and value.grad.is_meta for value in model.parameters())


def test_a_tensor_that_stayed_behind_is_refused() -> None:
    model, batch = moved(DPO())
    with pytest.raises(RuntimeError, match="device"):
        torch.add(model(batch, Draws()).logps[batch.targets.pairs], torch.zeros(4, 2))
