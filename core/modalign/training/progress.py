"""A progress bar in a terminal, a line per log elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from modalign.training.callbacks import Callback, Snapshot

_SHOWN = (  #: metrics worth a place beside the bar, the first ones that a run has
    "loss",
    "eval_loss",
    "rewards/accuracies",
    "eval_rewards/accuracies",
    "accuracy",
    "eval_accuracy",
    "learning_rate",
)


@contextmanager
def counting(total: int, what: str, *, quiet: bool = False) -> Iterator[Callable[[int], None] | None]:
    """A bar on the terminal of the first process, which is told how much is done; None where there is no terminal.

    quiet: show none.
    """
    screen = Console(stderr=True)
    if quiet or not screen.is_terminal or os.environ.get("RANK", "0") != "0":
        yield None
        return
    columns = (TextColumn(escape(what)), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@final
class ProgressBar(Callback):
    """Shows how far a run is and its last metrics, on stderr.

    console: where to; by default the terminal's stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._metrics: dict[str, float] = {}

    def on_train_begin(self, run: Snapshot) -> None:
        if not run.main or not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("training", total=run.steps, completed=run.step, shown="")
        self._bar.start()

    def on_step_end(self, run: Snapshot) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=run.step)

    def on_log(self, run: Snapshot) -> None:
        self._show(run)

    def on_evaluate(self, run: Snapshot) -> None:
        self._show(run)

    def on_train_end(self, run: Snapshot) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, run: Snapshot) -> None:
        if not run.main:
            return
        self._metrics |= run.metrics
        found = self._metrics if self._bar is not None else run.metrics
        shown = "  ".join(f"{name} {found[name]:.4g}" for name in _SHOWN if name in found)
        if self._bar is not None:
            self._bar.update(self._task, shown=shown)
        else:
            self.console.print(f"step {run.step}/{run.steps}  {shown}", highlight=False, soft_wrap=True)
