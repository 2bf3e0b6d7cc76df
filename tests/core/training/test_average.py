"""The moving average of what trains is evaluated and saved, and a resumed run goes on with it."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from modalign.errors import CheckpointError
from modalign.model import Model
from modalign.objectives import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer, TrainingConfig
from modalign.training.average import Average
from modalign.training.callbacks import Callback, Snapshot


class _Watch(Callback):
    """The trained weights after each step."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.seen: list[dict[str, Tensor]] = [self._now()]

    def on_step_end(self, run: Snapshot) -> None:
        self.seen.append(self._now())

    def _now(self) -> dict[str, Tensor]:
        return {name: value.detach().double().clone() for name, value in self.model.trainable().items()}


def _expected(seen: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    found = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        kept = min(decay, (1 + step) / (10 + step))
        found = {name: kept * found[name] + (1 - kept) * value for name, value in weights.items()}
    return found


def _train(folder: Path, steps: int, **settings: object) -> tuple[Trainer, _Watch]:
    model = toy_model()
    watch = _Watch(model)
    config = {"learning_rate": 1e-2, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant", **settings}
    trainer = Trainer(
        model=model,
        objective=DPO(),
        data=toy_pairs(8),
        eval_data=toy_pairs(3),
        callbacks=[watch],
        quiet=True,
        output_dir=folder,
        max_steps=steps,
        **config,
    )
    trainer.train()
    return trainer, watch


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_model_ends_as_the_average(tmp_path: Path, decay: float) -> None:
    trainer, watch = _train(tmp_path / "run", 6, ema_decay=decay)
    trained = trainer.parts.model.trainable()
    expected = _expected(watch.seen, decay)
    for name, value in trained.items():
        torch.testing.assert_close(value.detach().double(), expected[name], atol=1e-6, rtol=1e-5)
    assert any(not value.double().equal(watch.seen[-1][name]) for name, value in trained.items())


def test_evaluation_is_of_the_average_and_training_goes_on_without_it(tmp_path: Path) -> None:
    plain, seen = _train(tmp_path / "plain", 6)
    averaged, watched = _train(tmp_path / "averaged", 6, ema_decay=0.9, eval_steps=2)
    for one, other in zip(seen.seen, watched.seen, strict=True):  # the same steps, evaluated between or not
        assert all(one[name].equal(other[name]) for name in one)
    last = (tmp_path / "averaged" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    loss = averaged.evaluate()["eval_loss"]  # of the model as it is now: the average
    assert f'"eval_loss": {loss!r}' in last
    assert loss != plain.evaluate()["eval_loss"]


def test_a_resumed_run_goes_on_with_the_average(tmp_path: Path) -> None:
    whole, _ = _train(tmp_path / "whole", 6, ema_decay=0.9)
    _train(tmp_path / "parts", 3, ema_decay=0.9)
    model = toy_model()
    Trainer(
        model=model,
        objective=DPO(),
        data=toy_pairs(8),
        eval_data=toy_pairs(3),
        quiet=True,
        output_dir=tmp_path / "parts",
        max_steps=6,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        lr_scheduler_type="constant",
        ema_decay=0.9,
        resume_from_checkpoint="auto",
    ).train()
    for name, value in whole.parts.model.trainable().items():
        assert value.equal(model.trainable()[name])


def test_a_run_without_an_average_takes_none_from_a_checkpoint(tmp_path: Path) -> None:
    _train(tmp_path / "run", 2, ema_decay=0.9)
    with pytest.raises(CheckpointError, match="ema_decay"):
        _train(tmp_path / "run", 4, resume_from_checkpoint="auto")


def test_low_precision_is_averaged_in_float32() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    average = Average({"weight": weight}, decay=0.999)
    with torch.no_grad():
        weight.add_(1)
    for step in range(10_000, 10_010):
        average.update(step)
    assert 1.0 < average.tensors["weight"].item() < 1.02  # in bfloat16 it would not have moved
    with average.standing():
        assert weight.dtype == torch.bfloat16
    assert weight.item() == 2.0


def test_a_decay_lies_between_0_and_1() -> None:
    with pytest.raises(ValidationError):
        TrainingConfig(ema_decay=1.0)
