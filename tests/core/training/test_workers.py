"""A process that prepares samples and dies names the row it was at."""

import os
import signal
from pathlib import Path

import pytest
from torch.utils.data import get_worker_info

from modalign.assembler import Sample
from modalign.data import prepare, read
from modalign.errors import ResourceError
from modalign.objectives import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.training.loader import Assembling, load_steps
from modalign.training.plan import Plan


class Deadly:
    """Prepared samples, one of which takes the process along that makes it, as a decoder's crash would."""

    def __init__(self, kill: int) -> None:
        self.inner = prepare(read(toy_pairs(6)), toy_model().assembly.preparer, DPO.needs)
        self.kill = kill

    def __len__(self) -> int:
        return len(self.inner)

    def name(self, position: int, seed: int) -> str:
        return self.inner.name(position, seed)

    def sample(self, position: int, seed: int) -> Sample:
        if position == self.kill and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.inner.sample(position, seed)


@pytest.mark.parametrize("kill", [0, 3, 5])
@pytest.mark.filterwarnings("ignore:This process")  # the fork of a test runner that has threads
def test_a_worker_that_dies_names_its_row(kill: int, tmp_path: Path) -> None:
    samples = Deadly(kill)
    trainer = Trainer(
        model=toy_model(),
        objective=DPO(),
        data=samples,
        output_dir=tmp_path / "run",
        dataloader_num_workers=2,
    )
    with pytest.raises(ResourceError, match="a process that prepares samples died") as caught:
        trainer.train()
    assert samples.name(kill, trainer.parts.config.seed) in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), EOFError(), FileNotFoundError("no socket")])
@pytest.mark.filterwarnings("ignore:This process")
def test_a_worker_whose_connection_breaks_before_its_death_is_known_is_named_too(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Deadly(-1)
    steps = load_steps(
        samples,
        Plan(total=1, batch=1, world=1),
        Assembling(share=True, pad=0, objective=DPO()),
        rank=0,
        seed=0,
        workers=1,
    )

    def broken(self: object) -> object:
        steps._picked.at[0] = 0  # the worker was at the first sample
        raise error

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter.__next__", broken)
    monkeypatch.setattr("modalign.training.loader._PATIENCE", 0.0)
    with pytest.raises(ResourceError, match="a process that prepares samples died") as caught, steps:
        next(iter(steps))
    assert samples.name(0, 0) in str(caught.value)
