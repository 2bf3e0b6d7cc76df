"""A loss, a gradient or a weight that is no finite number is met before a parameter changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.errors import NumericError
from modalign.model import Model
from modalign.objectives import DPO, SFT, Objective
from modalign.testing import toy_model, toy_pairs
from modalign.training import Callback, Snapshot, Trainer
from modalign.training.storage.metricslog import read_metrics


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(
    folder: Path,
    *,
    model: Model | None = None,
    objective: Objective | None = None,
    data: object = None,
    **settings: object,
) -> Trainer:
    return Trainer(
        model=model or toy_model(),
        objective=objective or DPO(),
        data=toy_pairs(8) if data is None else data,
        quiet=True,
        **{"output_dir": folder, "learning_rate": 1e-2, **settings},
    )


def rows(folder: Path) -> list[dict[str, float]]:
    """Metrics without those that measure time."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class _Poison(Callback):
    """Makes one parameter, or one gradient, not a number after a step."""

    def __init__(self, model: Model, step: int) -> None:
        self.model, self.step = model, step

    def on_step_end(self, run: Snapshot) -> None:
        if run.step == self.step:
            with torch.no_grad():
                self.model.get_parameter("decoders.text.head.bias")[97] = torch.nan


class _Explosive(Objective):
    """An objective whose loss is not a number for one comparison."""

    needs = SFT.needs
    inner: SFT = SFT()
    gradient_only: bool = False

    def __call__(self, scores, targets, statistics=None):
        loss = self.inner(scores, targets, statistics)
        bad = scores["policy"].logps.sum()
        extra = (bad - bad.detach()).abs().sqrt() if self.gradient_only else bad * torch.nan
        return replace(loss, sum=loss.sum + extra)

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return self.inner.count(targets, tokens)


def test_a_parameter_that_is_no_number_stops_the_run_before_it_spreads(tmp_path: Path) -> None:
    model = toy_model()
    trainer = Trainer(
        model=model,
        objective=DPO(),
        data=toy_pairs(8),
        callbacks=[_Poison(model, 2)],
        output_dir=tmp_path,
        max_steps=4,
        quiet=True,
    )
    with pytest.raises(NumericError, match=r"rows:\d.*step 3.*parameter decoders\.text\.head\.bias"):
        trainer.train()
    others = {name: value for name, value in model.named_parameters() if name != "decoders.text.head.bias"}
    assert all(value.isfinite().all() for value in others.values())
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_loss_or_gradient_that_is_no_number_changes_no_parameter(tmp_path: Path, gradient_only: bool) -> None:
    model, before = toy_model(), toy_model()
    with pytest.raises(NumericError, match="gradient of" if gradient_only else "the loss") as caught:
        make(tmp_path, model=model, objective=_Explosive(gradient_only=gradient_only), max_steps=2).train()
    assert caught.value.exit_code == 7
    assert equal(dict(model.state_dict()), dict(before.state_dict()))
    dump = json.loads((tmp_path / "nonfinite-step-1.json").read_text())
    assert dump["step"] == 1
    assert dump["ranks"][0]["micro_batches"][0]["ids"] == caught.value.where.split(", ")  # pyright: ignore[reportOptionalMemberAccess]
    assert dump["ranks"][0]["micro_batches"][0]["logps"]["policy"]
