"""Mixed batches on two processes equal those on one, whatever trains. Run as a script, this file is one of the two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modalign
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.model import Model
from modalign.objectives import DPO, KTO, BradleyTerry, Objective
from modalign.training import Trainer
from modalign.training.storage.metricslog import read_metrics
from modalign_image.testing import tiny_vision
from modalign_text.multimodal.cases import answer, in_prompt, in_responses, loaded, message
from modalign_text.testing import tiny_model

#: what is trained, by name: in the first three a process whose rows are words alone reaches nothing that trains
CASES: dict[str, tuple[Objective, dict[str, object]]] = {
    "connector": (DPO(), {"freeze": ("encoders", "backbone", "decoders")}),
    "composed-connector": (DPO(), {"freeze": ("encoders", "backbone", "decoders")}),
    "towers": (DPO(), {"freeze": ("connectors", "backbone", "decoders")}),
    "all": (KTO(), {"freeze": ()}),
    "adapter": (DPO(), {"adapter": AdapterConfig(r=2)}),
    "reward": (BradleyTerry(), {}),
}


def data() -> list[Comparison]:
    """Rows with and without media, so that in some steps one process has words alone and in one both have."""
    bare = [Comparison.pair([message("user", f"hello {n}")], answer("hi"), answer("go away now")) for n in range(5)]
    media = [in_prompt("image", 0), in_responses("image"), in_prompt("image", 5)]
    return [media[0], bare[0], bare[1], bare[2], bare[3], media[1], bare[4], media[2]]


def model(name: str, models: Path) -> Model:
    settings = CASES[name][1]
    if not name.startswith("composed"):
        return loaded(models, "llava", **settings)
    return modalign.load(models / "words", encoders={"image": {"path": str(models / "clip")}}, **settings)


def train(name: str, models: Path, folder: Path, world: int) -> None:
    Trainer(
        model=model(name, models),
        objective=CASES[name][0],
        data=data(),
        output_dir=folder / name,
        learning_rate=3e-3,
        per_device_train_batch_size=2 // world,
        gradient_accumulation_steps=2,
        num_train_epochs=2.0,
        quiet=True,
    ).train()


def rows(folder: Path) -> list[dict[str, float]]:
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes have left, beside runs of one."""
    folder = tmp_path_factory.mktemp("mixed")
    loaded(folder / "models", "llava")
    tiny_model(folder / "models/words", scale=4.0)
    tiny_vision(folder / "models/clip", "clip")
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
def test_mixed_batches_on_two_processes_equal_one(both: Path, name: str) -> None:
    one, two = rows(both / "one" / name), rows(both / "two" / name)
    assert len(one) == len(two) == 4
    # extremes are of a micro-batch, and an encoder counts what its own process ran on
    apart = {"min_reward", "max_reward"} | {key for key in one[0] if key.startswith("encoder/")}
    for expected, found in zip(one, two, strict=True):
        for key in {*expected, *found} - apart:
            assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5), (expected["step"], key)
    assert one[0]["loss"] != one[-1]["loss"]


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    for case in CASES:
        train(case, place / "models", place / "two", 2)
