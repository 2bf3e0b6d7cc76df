"""Trackers beside the local metrics file, loaded by name when a run asks for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import final

from modalign.errors import ConfigError, MissingExtra
from modalign.training.callbacks import Callback, Snapshot, Tolerant

PROJECT = "modalign"  #: what trackers file runs under


def make_trackers(names: Sequence[str]) -> list[Callback]:
    """A callback per tracker; its package is imported now, so that a missing one is said before any work."""
    return [Tolerant(name, _make(name)) for name in names]


def _make(name: str) -> Callback:
    match name:
        case "trackio" | "wandb":
            return RunTracker(_package(name, name))
        case "tensorboard":
            _package("tensorboard", name)
            return TensorBoard(_package("torch.utils.tensorboard", name))
        case _:
            raise ConfigError(
                f"no tracker {name!r}",
                where="report_to",
                got=name,
                fix="use tensorboard, trackio or wandb; metrics.jsonl is always written",
            )


def _package(module: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"the tracker {extra!r} is not installed",
            where="report_to",
            got=error,
            fix=f'pip install "modalign[{extra}]", or leave it out of report_to',
        ) from error


def run_name(run: Snapshot) -> str:
    """What the run is called."""
    return run.config.run_name or run.folder.name


@final
class RunTracker(Callback):
    """Trackers of wandb's shape: `init`, `log` by step, `finish`.

    module: `trackio` or `wandb`.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def on_train_begin(self, run: Snapshot) -> None:
        if run.main:
            self.module.init(project=PROJECT, name=run_name(run), config=run.config.model_dump(mode="json"))

    def on_log(self, run: Snapshot) -> None:
        self._log(run)

    def on_evaluate(self, run: Snapshot) -> None:
        self._log(run)

    def on_train_end(self, run: Snapshot) -> None:
        if run.main:
            self.module.finish()

    def _log(self, run: Snapshot) -> None:
        if run.main:
            self.module.log(dict(run.metrics), step=run.step)


@final
class TensorBoard(Callback):
    """Scalars for TensorBoard, in the run folder's `tensorboard/`.

    module: `torch.utils.tensorboard`.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def on_train_begin(self, run: Snapshot) -> None:
        if run.main:
            self.writer = self.module.SummaryWriter(log_dir=str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def on_log(self, run: Snapshot) -> None:
        self._log(run.metrics, run)

    def on_evaluate(self, run: Snapshot) -> None:
        self._log(run.metrics, run)

    def on_train_end(self, run: Snapshot) -> None:
        if run.main:
            self.writer.close()

    def _log(self, metrics: Mapping[str, float], run: Snapshot) -> None:
        if run.main:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, run.step)
            self.writer.flush()
