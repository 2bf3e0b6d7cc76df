"""The loop of a run: steps, and what happens between them, in an order that a resumed run repeats."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from modalign.errors import ModalignError, Preempted
from modalign.failpoints import hit
from modalign.training.evaluation import measure
from modalign.training.loader import MicroBatch, load_steps
from modalign.training.metrics import Window
from modalign.training.session import Session
from modalign.training.steps import Report, Stepper


@final
class Loop:
    """Runs a plan from where its session's progress is to its end.

    A checkpoint is written last of all that belongs to a step, so that one that is resumed repeats nothing and leaves
    nothing out.

    session: what is written, measured and saved between steps.
    stopped: whether this process was asked to stop.
    """

    def __init__(self, session: Session, *, stopped: Callable[[], bool]) -> None:
        self.session, self.stopped = session, stopped
        self.parts, self.progress = session.parts, session.progress
        self._clock = _Clock()

    def run(self, stepper: Stepper) -> None:
        """Train to the end, or to a signal: then save and raise `Preempted`."""
        parts, progress, config = self.parts, self.progress, self.parts.config
        self._evaluate()  # a run that was stopped may owe an evaluation
        steps = load_steps(
            parts.data,
            parts.plan,
            parts.assembling,
            rank=parts.ranks.rank,
            seed=config.seed,
            first=progress.step,
            workers=config.dataloader_num_workers,
            group=config.group_micro_batches,
        )
        self._clock = _Clock()
        with steps:
            for micro in steps:
                hit("step-begin")
                parts.ranks.raise_together(micro if isinstance(micro, ModalignError) else None)
                assert isinstance(micro, list)
                self._step(stepper, micro)

    def _step(self, stepper: Stepper, micro: list[MicroBatch]) -> None:
        parts, config, progress = self.parts, self.parts.config, self.progress
        position = progress.step * parts.plan.together
        report = stepper(progress.step, position, position // len(parts.data), micro, stop=self.stopped())
        self._took(report)
        if self.session.average is not None:
            self.session.average.update(progress.step)
        self._log(report)
        if report.stop and progress.step < parts.plan.steps:
            self._save()
            raise Preempted(
                f"training was asked to stop after step {progress.step} of {parts.plan.steps}, and was saved",
                fix="run the same command again with resume_from_checkpoint=auto",
            )
        self._evaluate()
        if progress.step == parts.plan.steps or (config.save_steps and progress.step % config.save_steps == 0):
            self._save()

    def _took(self, report: Report) -> None:
        self.progress.step += 1
        self.progress.tokens += report.tokens
        self.progress.window.extend(report.totals)
        self._clock.took(report)
        self.session.tell("on_step_end", Window(report.totals).means())

    def _log(self, report: Report) -> None:
        progress = self.progress
        if progress.step % self.parts.config.logging_steps and progress.step != self.parts.plan.steps:
            return
        hit("log")
        row = progress.window.means() | {
            "learning_rate": report.learning_rate,
            "epoch": self.session.epoch,
            "num_tokens": float(progress.tokens),
        }
        progress.window = Window()
        progress.metrics |= row
        self.session.write("on_log", row | self._clock.rates())
        self._clock = _Clock()

    def _evaluate(self) -> None:
        progress, every = self.progress, self.parts.config.eval_steps
        last = progress.step == self.parts.plan.steps
        due = progress.step > 0 and (last or (every is not None and progress.step % every == 0))
        if self.parts.eval_data is None or not due or progress.evaluated == progress.step:
            return
        with self.session.averaged():
            found = measure(self.parts)
        progress.evaluated = progress.step
        progress.metrics |= found.metrics
        self.session.keep(found.predictions)
        self.session.write("on_evaluate", {**found.metrics, "epoch": self.session.epoch})
        self._clock.forget()

    def _save(self) -> None:
        hit("save")
        self.session.save()
        self._clock.forget()


@final
class _Clock:
    """Throughput of a logging window. These are the only metrics that differ between a run and its repetition."""

    def __init__(self) -> None:
        self.since, self.seconds = time.monotonic(), 0.0
        self.samples = self.tokens = 0

    def took(self, report: Report) -> None:
        now = time.monotonic()
        self.seconds, self.since = self.seconds + now - self.since, now
        self.samples += report.samples
        self.tokens += report.tokens

    def forget(self) -> None:
        """Leave out the time since the last step: it was spent on something else."""
        self.since = time.monotonic()

    def rates(self) -> dict[str, float]:
        seconds = max(self.seconds, 1e-9)
        return {
            "perf/samples_per_second": self.samples / seconds,
            "perf/tokens_per_second": self.tokens / seconds,
        }
