"""Two processes equal one: the same samples, and losses to 1e-6. Run as a script, this file is one of the two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch

from modalign.data import Prepared, prepare, read
from modalign.errors import DistributedError, NumericError
from modalign.objectives import DPO, KTO, SFT, BradleyTerry, Objective
from modalign.testing import toy_model, toy_pairs
from modalign.training import Callback, Snapshot, Trainer
from modalign.training.storage.metricslog import read_metrics

if TYPE_CHECKING:
    from modalign.assembler import Sample

OBJECTIVES: dict[str, Objective] = {"dpo": DPO(), "kto": KTO(), "sft": SFT(), "reward": BradleyTerry()}


class Recording:
    """Prepared samples that remember which positions were asked for."""

    def __init__(self, inner: Prepared) -> None:
        self.inner = inner
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.inner)

    def sample(self, position: int, seed: int) -> "Sample":
        self.asked.append(position)
        return self.inner.sample(position, seed)


def train(folder: Path, name: str, world: int, *, resume: bool = False) -> list[int]:
    """Train on 11 positions in steps of 4: the last has 3, so that of two processes one has none left at its end."""
    objective, whole = OBJECTIVES[name], name in ("kto", "sft")
    # the whole toy model, some of whose modules a batch of words alone leaves out, and an adapter
    model = toy_model(adapter=not whole and name != "reward", head=name == "reward")
    pairs = [pair if number % 2 else with_blob for number, (pair, with_blob) in enumerate(_both(7))]
    data = prepare(read(pairs), model.assembly.preparer, objective.needs)
    recording = Recording(data)
    Trainer(
        model=model,
        objective=objective,
        data=recording,
        eval_data=prepare(read(toy_pairs(5)), model.assembly.preparer, objective.needs),
        output_dir=folder,
        learning_rate=3e-3,
        num_train_epochs=1.5,
        per_device_train_batch_size=2 // world,
        per_device_eval_batch_size=4 // world,
        gradient_accumulation_steps=2,
        save_steps=2,
        save_total_limit=4,
        eval_steps=2,
        quiet=True,
        resume_from_checkpoint=folder / "checkpoints/checkpoint-2" if resume else None,
    ).train()
    return recording.asked


def _both(count: int):
    return zip(toy_pairs(count), toy_pairs(count, blobs=True), strict=True)


class _Poison(Callback):
    """Spoils a parameter on one process only."""

    def __init__(self, model: torch.nn.Module, rank: int) -> None:
        self.model, self.rank = model, rank

    def on_step_end(self, run: Snapshot) -> None:
        if self.rank == 1 and run.step == 1:
            with torch.no_grad():
                self.model.get_parameter("backbone.up.weight").fill_(torch.nan)


def spoil(folder: Path, rank: int) -> str:
    """What each process says when a number is not finite on one of them."""
    model = toy_model(adapter=True)
    try:
        Trainer(
            model=model,
            objective=DPO(),
            data=toy_pairs(4),
            callbacks=[_Poison(model, rank)],
            output_dir=folder,
            max_steps=3,
            quiet=True,
        ).train()
    except NumericError as error:
        return str(error)
    return "nothing"


def disagree(folder: Path, rank: int) -> str:
    """What each process says when they were given different settings."""
    try:
        Trainer(
            model=toy_model(), objective=DPO(beta=0.1 + rank), data=toy_pairs(4), output_dir=folder, quiet=True
        ).train()
    except DistributedError as error:
        return str(error)
    return "nothing"


def rows(folder: Path) -> list[dict[str, float]]:
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have left, beside runs of one."""
    folder = tmp_path_factory.mktemp("distributed")
    for name in OBJECTIVES:
        asked = train(folder / "one" / name, name, 1)
        (folder / "one" / f"{name}.json").write_text(json.dumps(asked))
    (folder / "two").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_take_the_samples_of_one(two: Path, name: str) -> None:
    one = json.loads((two / "one" / f"{name}.json").read_text())
    asked = [json.loads((two / "two" / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
    assert one == list(range(11))
    assert asked[0] == [0, 2, 4, 6, 8, 10]
    # the last micro-batch of the second process is filled with the step's first sample, at weight 0
    assert asked[1] == [1, 3, 5, 7, 9, 8]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_write_the_metrics_of_one(two: Path, name: str) -> None:
    one, both = rows(two / "one" / name), rows(two / "two" / name)
    assert len(one) == len(both) == 5  # 3 steps and 2 evaluations
    # extremes are of a micro-batch and not of its samples
    by_batch = {"min_reward", "max_reward"}
    for expected, found in zip(one, both, strict=True):
        # what an encoder ran on counts the sample that fills a process's last micro-batch up
        counts = {key for key in expected if key.startswith("encoder/")}
        for key in {*expected, *found} - by_batch - counts - {f"eval_{metric}" for metric in by_batch}:
            assert found[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-6), (expected["step"], key)
    assert one[0]["loss"] != one[1]["loss"]


def test_a_run_of_one_process_goes_on_with_two(two: Path) -> None:
    one, resumed = rows(two / "one" / "dpo"), rows(two / "resumed")
    assert [row["step"] for row in resumed] == [row["step"] for row in one]
    assert resumed[:3] == one[:3]
    for expected, found in zip(one, resumed, strict=True):
        assert found["loss" if "loss" in found else "eval_loss"] == pytest.approx(
            expected["loss" if "loss" in expected else "eval_loss"], abs=1e-6
        )


def test_a_number_that_is_not_finite_on_one_process_stops_both(two: Path) -> None:
    said = [(two / "two" / f"spoil-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "step 2 is not finite" in said[0]
    assert "parameter backbone.up.weight" in said[0]


def test_processes_that_were_given_different_settings_say_so(two: Path) -> None:
    for rank in (0, 1):
        said = (two / "two" / f"disagree-{rank}").read_text()
        assert "the processes disagree" in said
        assert "beta" in said


def main(folder: Path) -> None:
    """One of two processes."""
    import shutil

    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for name in OBJECTIVES:
        asked = train(folder / "two" / name, name, 2)
        (folder / "two" / f"{name}-{rank}.json").write_text(json.dumps(asked))
    if rank == 0:
        shutil.copytree(folder / "one" / "dpo", folder / "resumed")
    torch.distributed.barrier()
    train(folder / "resumed", "dpo", 2, resume=True)
    (folder / "two" / f"spoil-{rank}").write_text(spoil(folder / "two" / "spoil", rank))
    (folder / "two" / f"disagree-{rank}").write_text(disagree(folder / "two" / "disagree", rank))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(cast(str, sys.argv[1])))
