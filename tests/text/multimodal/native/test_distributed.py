"""Rows to words and rows to pictures on two processes equal those on one. Run as a script, this is one of the two."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.objectives import DPO, KTO, Objective
from modalign.training import Trainer
from modalign.training.storage.metricslog import read_metrics
from modalign_text.multimodal.cases import answer, message
from modalign_text.multimodal.native.cases import both, draws, loaded, reads

#: what is trained, by name; in the first a process whose rows are words alone reaches nothing that trains
CASES: dict[str, tuple[Objective, dict[str, object]]] = {
    "janus-draws": (DPO(), {"freeze": ("encoders", "backbone", "decoders.text")}),
    "janus-all": (KTO(), {"freeze": ()}),
    "emu3-adapter": (DPO(), {"adapter": AdapterConfig(r=2)}),
}


def data() -> list[Comparison]:
    """Rows with and without pictures, so that in some steps one process has words alone and in one both have."""
    pairs = [Comparison.pair([message("user", f"hello {n}")], answer("hi"), answer("go away now")) for n in range(4)]
    bare = [replace(one, id=f"bare-{number}") for number, one in enumerate(pairs)]
    return [draws("a"), bare[0], bare[1], bare[2], reads("b"), both("c"), bare[3], draws("d")]


def train(name: str, models: Path, folder: Path, world: int) -> None:
    objective, settings = CASES[name]
    Trainer(
        model=loaded(models, name.split("-", maxsplit=1)[0], **settings),
        objective=objective,
        data=data(),
        output_dir=folder / name,
        learning_rate=3e-3,
        per_device_train_batch_size=2 // world,
        gradient_accumulation_steps=2,
        num_train_epochs=2.0,
        quiet=True,
    ).train()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have left, beside runs of one."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in CASES:
        train(name, folder / "models", folder / "one", 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_mixed_batches_on_two_processes_equal_one(there: Path, name: str) -> None:
    one, two = (list(read_metrics(there / which / name / "metrics.jsonl")) for which in ("one", "two"))
    assert len(one) == len(two) == 4
    # extremes are of a micro-batch, and an encoder counts what its own process ran on
    apart = ("min_reward", "max_reward", "encoder/", "perf/")
    for expected, found in zip(one, two, strict=True):
        for key in {*expected, *found}:
            if not key.startswith(apart):
                assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5), (expected["step"], key)
    assert one[0]["loss"] != one[-1]["loss"]


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    for case in CASES:
        train(case, place / "models", place / "two", 2)
