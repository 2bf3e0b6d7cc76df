"""Trackers come by name, are missed in words, and never take a run down."""

import importlib
import logging
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from modalign.errors import ConfigError, MissingExtra
from modalign.objectives import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.training.storage.metricslog import read_metrics
from modalign.training.tracking import TensorBoard, make_trackers


class FakeTracker(ModuleType):
    """A package of wandb's shape."""

    def __init__(self, name: str, *, fails: str | None = None) -> None:
        super().__init__(name)
        self.fails = fails
        self.started: list[dict[str, object]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, *, project: str, name: str, config: dict[str, object]) -> None:
        self.started.append({"project": project, "name": name, "config": config})
        if self.fails == "init":
            raise ConnectionError("no network")

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self.logged.append((step, metrics))
        if self.fails == "log":
            raise ConnectionError("no network")

    def finish(self) -> None:
        self.finished += 1


def train(folder: Path, *trackers: str, **settings: object) -> None:
    Trainer(
        model=toy_model(),
        objective=DPO(),
        data=toy_pairs(4),
        eval_data=toy_pairs(2),
        quiet=True,
        **{"output_dir": folder, "max_steps": 3, "report_to": trackers, **settings},
    ).train()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_the_rows_of_the_metrics_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake = FakeTracker(name)
    monkeypatch.setitem(sys.modules, name, fake)
    train(tmp_path, name, run_name="try 1")
    assert [(one["project"], one["name"]) for one in fake.started] == [("modalign", "try 1")]
    assert fake.started[0]["config"]["max_steps"] == 3  # pyright: ignore[reportIndexIssue]
    assert [{"step": step, **metrics} for step, metrics in fake.logged] == list(
        read_metrics(tmp_path / "metrics.jsonl")
    )
    assert fake.finished == 1


@pytest.mark.parametrize("fails", ["init", "log"])
def test_a_tracker_that_fails_warns_once_and_the_run_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    fake = FakeTracker("wandb", fails=fails)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with caplog.at_level(logging.WARNING, logger="modalign"):
        train(tmp_path, "wandb")
    assert len([one for one in caplog.records if "wandb failed" in one.getMessage()]) == 1
    assert len(fake.logged) == (0 if fails == "init" else 1)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 3]
    assert (tmp_path / "final").is_dir()


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as an import finds a package that is not there
    with pytest.raises(MissingExtra, match=rf'pip install "modalign\[{name}\]"'):
        train(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


def test_a_tracker_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no tracker 'tensorbord'.*tensorboard, trackio or wandb"):
        make_trackers(["tensorbord"])


class FakeWriter:
    def __init__(self, *, log_dir: str, purge_step: int) -> None:
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars: dict[tuple[str, int], float] = {}
        self.flushed = self.closed = 0

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


def test_tensorboard_gets_a_scalar_per_metric_and_step(tmp_path: Path) -> None:
    module = ModuleType("writer")
    module.SummaryWriter = FakeWriter  # pyright: ignore[reportAttributeAccessIssue]
    board = TensorBoard(module)
    Trainer(
        model=toy_model(),
        objective=DPO(),
        data=toy_pairs(4),
        callbacks=[board],
        quiet=True,
        output_dir=tmp_path,
        max_steps=2,
    ).train()
    assert (Path(board.writer.log_dir), board.writer.purge_step) == (tmp_path / "tensorboard", 1)
    assert board.writer.scalars["loss", 1] == math.log(2)
    assert (board.writer.flushed, board.writer.closed) == (2, 1)


def test_tensorboard_writes_its_files_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tmp_path, "tensorboard")
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_metrics_file_needs_no_tracker(tmp_path: Path) -> None:
    before = set(sys.modules)
    train(tmp_path)
    assert not {"wandb", "trackio"} & (set(sys.modules) - before)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 0
    importlib.invalidate_caches()
