"""What may watch a run: callbacks receive frozen snapshots, so that watching changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, final

from modalign.training.config import TrainingConfig

log = logging.getLogger(__name__)

Event = Literal["on_train_begin", "on_step_end", "on_log", "on_evaluate", "on_save", "on_train_end"]


@final
@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run at one moment.

    step, steps: optimizer steps done, and of the whole run.
    epoch: passes over the data, with a fraction.
    metrics: those of the event: of the step, the log or the evaluation; at the end the last ones of all.
    folder: the run folder.
    config: of the run.
    main: whether this is the first process.
    """

    step: int
    steps: int
    epoch: float
    folder: Path
    config: TrainingConfig
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    main: bool = True


class Callback:
    """Watches a run: override what you want to see. Called on every process; what it raises ends the run.

    >>> class Printer(Callback):
    ...     def on_log(self, run: Snapshot) -> None:
    ...         print(run.step, run.metrics["loss"])
    """

    def on_train_begin(self, run: Snapshot) -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_step_end(self, run: Snapshot) -> None:
        """After every optimizer step."""

    def on_log(self, run: Snapshot) -> None:
        """After metrics were written."""

    def on_evaluate(self, run: Snapshot) -> None:
        """After an evaluation."""

    def on_save(self, run: Snapshot) -> None:
        """After a checkpoint was written."""

    def on_train_end(self, run: Snapshot) -> None:
        """After the final model was written, or when the run stops early."""


@final
class Tolerant(Callback):
    """A callback that may fail: it warns once, and the run goes on without it. For what depends on a network."""

    def __init__(self, name: str, inner: Callback) -> None:
        self.name, self.inner, self.failed = name, inner, False

    def on_train_begin(self, run: Snapshot) -> None:
        self._try("on_train_begin", run)

    def on_step_end(self, run: Snapshot) -> None:
        self._try("on_step_end", run)

    def on_log(self, run: Snapshot) -> None:
        self._try("on_log", run)

    def on_evaluate(self, run: Snapshot) -> None:
        self._try("on_evaluate", run)

    def on_save(self, run: Snapshot) -> None:
        self._try("on_save", run)

    def on_train_end(self, run: Snapshot) -> None:
        self._try("on_train_end", run)

    def _try(self, event: Event, run: Snapshot) -> None:
        if self.failed:
            return
        try:
            getattr(self.inner, event)(run)
        except Exception as error:
            self.failed = True
            log.warning(
                "%s failed at step %d and is left out from here on; metrics.jsonl has everything (%s: %s)",
                self.name,
                run.step,
                type(error).__name__,
                error,
            )


def notify(callbacks: Sequence[Callback], event: Event, run: Snapshot) -> None:
    """Tell every callback of an event, in their order."""
    for callback in callbacks:
        getattr(callback, event)(run)
