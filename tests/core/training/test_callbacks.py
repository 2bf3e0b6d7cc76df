"""Callbacks see what happens, in order, through snapshots that change nothing; a progress bar is one of them."""

import dataclasses
import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from modalign.objectives import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.training import Callback, Snapshot, Trainer, TrainingConfig
from modalign.training.callbacks import Tolerant
from modalign.training.progress import ProgressBar


class Recorder(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.runs: list[Snapshot] = []

    def on_train_begin(self, run: Snapshot) -> None:
        self._saw("begin", run)

    def on_step_end(self, run: Snapshot) -> None:
        self._saw("step", run)

    def on_log(self, run: Snapshot) -> None:
        self._saw("log", run)

    def on_evaluate(self, run: Snapshot) -> None:
        self._saw("evaluate", run)

    def on_save(self, run: Snapshot) -> None:
        self._saw("save", run)

    def on_train_end(self, run: Snapshot) -> None:
        self._saw("end", run)

    def _saw(self, event: str, run: Snapshot) -> None:
        self.seen.append((event, run.step))
        self.runs.append(run)


def train(folder: Path, *callbacks: Callback, quiet: bool = True, **settings: object) -> None:
    Trainer(
        model=toy_model(),
        objective=DPO(),
        data=toy_pairs(4),
        eval_data=toy_pairs(2),
        callbacks=callbacks,
        quiet=quiet,
        **{"output_dir": folder, "max_steps": 2, **settings},
    ).train()


def test_events_come_in_the_order_they_happen(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, logging_steps=2, save_steps=1)
    assert recorder.seen == [
        ("begin", 0),
        ("step", 1),
        ("save", 1),
        ("step", 2),
        ("log", 2),
        ("evaluate", 2),
        ("save", 2),
        ("end", 2),
    ]


def test_a_snapshot_says_where_the_run_is_and_cannot_be_changed(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, recorder)
    log = next(run for (event, _), run in zip(recorder.seen, recorder.runs, strict=True) if event == "log")
    assert (log.step, log.steps, log.epoch, log.folder, log.main) == (1, 2, 0.25, tmp_path, True)
    assert {"loss", "learning_rate", "num_tokens", "perf/samples_per_second"} <= log.metrics.keys()
    assert log.config.max_steps == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        log.step = 7  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        log.metrics["loss"] = 0.0  # pyright: ignore[reportIndexIssue]


class Failing(Callback):
    def __init__(self) -> None:
        self.calls = 0

    def on_step_end(self, run: Snapshot) -> None:
        self.calls += 1
        raise ConnectionError("no network")


def test_what_a_callback_raises_ends_the_run_and_the_end_is_told(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(ConnectionError):
        train(tmp_path, recorder, Failing())
    assert recorder.seen[-1] == ("end", 1)


def test_a_tolerated_callback_warns_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing()
    with caplog.at_level(logging.WARNING, logger="modalign"):
        train(tmp_path, Tolerant("the tracker", failing), max_steps=3)
    assert failing.calls == 1
    warned = [record.getMessage() for record in caplog.records if "the tracker" in record.getMessage()]
    assert len(warned) == 1
    assert "failed at step 1" in warned[0]
    assert "no network" in warned[0]


def _snapshot(folder: Path, step: int, **metrics: float) -> Snapshot:
    return Snapshot(step=step, steps=2, epoch=0.5, folder=folder, config=TrainingConfig(), metrics=metrics)


def test_progress_is_a_line_per_log_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    bar = ProgressBar(Console(file=out, force_terminal=False))
    bar.on_train_begin(_snapshot(tmp_path, 0))
    bar.on_step_end(_snapshot(tmp_path, 1, loss=0.5))
    bar.on_log(_snapshot(tmp_path, 1, loss=0.693147, learning_rate=1e-5))
    bar.on_train_end(_snapshot(tmp_path, 2))
    assert out.getvalue() == "step 1/2  loss 0.6931  learning_rate 1e-05\n"


def test_progress_is_a_bar_in_a_terminal(tmp_path: Path) -> None:
    out = io.StringIO()
    bar = ProgressBar(Console(file=out, force_terminal=True, width=120))
    bar.on_train_begin(_snapshot(tmp_path, 0))
    bar.on_step_end(_snapshot(tmp_path, 2, loss=0.5))
    bar.on_log(_snapshot(tmp_path, 2, loss=0.25))
    bar.on_evaluate(_snapshot(tmp_path, 2, eval_loss=0.125))
    bar.on_train_end(_snapshot(tmp_path, 2))
    assert "2/2" in out.getvalue()
    assert "loss 0.25  eval_loss 0.125" in out.getvalue()


def test_other_processes_show_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    bar = ProgressBar(Console(file=out, force_terminal=True))
    run = dataclasses.replace(_snapshot(tmp_path, 1, loss=1.0), main=False)
    for event in (bar.on_train_begin, bar.on_step_end, bar.on_log, bar.on_train_end):
        event(run)
    assert out.getvalue() == ""


def test_a_quiet_run_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "quiet")
    assert capfd.readouterr().err == ""
    train(tmp_path / "told", quiet=False)
    assert "step 2/2" in capfd.readouterr().err
