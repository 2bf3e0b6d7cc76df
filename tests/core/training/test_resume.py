"""A run that was stopped, killed or made longer goes on as if nothing had been."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from modalign.errors import CheckpointError, Preempted, ResourceError
from modalign.failpoints import active, fired
from modalign.model import Model
from modalign.objectives import DPO, Objective
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer, TrainingConfig
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


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final" / "toy.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


SETTINGS = {
    "max_steps": 10,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "logging_steps": 3,
    "eval_steps": 5,
    "warmup_steps": 2,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.1,
    "disable_dropout": False,  # so that the random state matters
}


def _run(folder: Path, *, adapter: bool = False, **settings: object) -> Model:
    model = toy_model(adapter=adapter)
    Trainer(
        model=model,
        objective=DPO(),
        data=toy_pairs(7, blobs=True),
        eval_data=toy_pairs(3),
        config=TrainingConfig(output_dir=folder, learning_rate=1e-2, **{**SETTINGS, **settings}),
        quiet=True,
    ).train()
    return model


@pytest.mark.parametrize("adapter", [False, True])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, adapter: bool) -> None:
    _run(tmp_path / "whole", adapter=adapter, save_steps=5)
    # dies in step 8, after a checkpoint at 5 and a log at 6
    with active("step-begin=raise:EIO@8"), pytest.raises(OSError, match="failpoint"):
        _run(tmp_path / "cut", adapter=adapter, save_steps=5)
    assert [row["step"] for row in rows(tmp_path / "cut")] == [3, 5, 6]
    _run(tmp_path / "cut", adapter=adapter, save_steps=5, resume_from_checkpoint="auto")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    last = [load_file(tmp_path / run / "checkpoints/checkpoint-10/tensors.safetensors") for run in ("cut", "whole")]
    assert equal(*last)


def test_workers_change_neither_order_nor_numbers(tmp_path: Path) -> None:
    _run(tmp_path / "none")
    _run(tmp_path / "two", dataloader_num_workers=2)
    assert rows(tmp_path / "two") == rows(tmp_path / "none")


def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    _run(tmp_path / "whole")
    with active("step-begin=signal:SIGTERM@5"), pytest.raises(Preempted, match="after step 5 of 10") as caught:
        _run(tmp_path / "cut")
    assert caught.value.exit_code == 75
    assert (tmp_path / "cut/checkpoints/checkpoint-5").is_dir()
    assert not (tmp_path / "cut/final").exists()
    # step 5 owes an evaluation: it is made up for, and again where the run is killed before its next checkpoint
    with active("step-begin=raise:EIO@1"), pytest.raises(OSError, match="failpoint"):
        _run(tmp_path / "cut", resume_from_checkpoint="auto")
    assert [row["step"] for row in rows(tmp_path / "cut")] == [3, 5]
    _run(tmp_path / "cut", resume_from_checkpoint="auto")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_auto_starts_anew_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert make(tmp_path, max_steps=1, resume_from_checkpoint="auto").train().steps == 1


def test_a_finished_run_that_is_resumed_adds_nothing(tmp_path: Path) -> None:
    _run(tmp_path)
    before, final = rows(tmp_path), weights(tmp_path)
    _run(tmp_path, resume_from_checkpoint="auto")
    assert rows(tmp_path) == before
    assert equal(weights(tmp_path), final)


def test_a_checkpoint_of_another_run_is_refused_naming_what_differs(tmp_path: Path) -> None:
    make(tmp_path, max_steps=2).train()
    with pytest.raises(CheckpointError, match="learning_rate, seed"):
        make(tmp_path, max_steps=2, learning_rate=1e-3, seed=1, resume_from_checkpoint="auto").train()
    with pytest.raises(CheckpointError, match="objective"):
        make(tmp_path, max_steps=2, objective=DPO(beta=0.3), resume_from_checkpoint="auto").train()
    with pytest.raises(CheckpointError, match="data"):
        make(tmp_path, max_steps=2, data=toy_pairs(9), resume_from_checkpoint="auto").train()
    with pytest.raises(CheckpointError, match="reference"):
        make(tmp_path, max_steps=2, model=toy_model(seed=1), resume_from_checkpoint="auto").train()


def test_a_run_can_be_made_longer(tmp_path: Path) -> None:
    make(tmp_path, max_steps=2, lr_scheduler_type="constant").train()
    make(tmp_path, max_steps=4, lr_scheduler_type="constant", resume_from_checkpoint="auto").train()
    make(tmp_path / "whole", max_steps=4, lr_scheduler_type="constant").train()
    assert rows(tmp_path) == rows(tmp_path / "whole")


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    with active("checkpoint-commit=raise:ENOSPC@2"), pytest.raises(ResourceError):
        make(tmp_path, max_steps=4, save_steps=2).train()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-2"]


def test_every_place_of_the_loop_can_fail(tmp_path: Path) -> None:
    for place in ("step-begin", "forward", "backward", "optimizer-step", "log", "save"):
        with active(f"{place}=raise:EIO@1"):
            with pytest.raises(OSError, match=f"failpoint {place}"):
                make(tmp_path / place, max_steps=1).train()
            assert fired()[place] == 1


def test_a_run_that_is_made_longer_after_a_short_last_step_says_what_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # 7 pairs in steps of 4: the second step of one epoch has 3
    settings = {"data": toy_pairs(7), "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}
    make(tmp_path / "cut", num_train_epochs=1, save_steps=1, **settings).train()
    make(tmp_path / "whole", num_train_epochs=2, **settings).train()
    shutil.copytree(tmp_path / "cut", tmp_path / "late")
    make(tmp_path / "late", num_train_epochs=2, resume_from_checkpoint="auto", **settings).train()
    assert "step 2 was the last of a shorter run and 1 comparison(s) short" in caplog.text
    assert rows(tmp_path / "late") != rows(tmp_path / "whole")
    caplog.clear()
    # what the warning says to do
    earlier = tmp_path / "cut/checkpoints/checkpoint-1"
    make(tmp_path / "cut", num_train_epochs=2, resume_from_checkpoint=earlier, **settings).train()
    assert "shorter run" not in caplog.text
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
