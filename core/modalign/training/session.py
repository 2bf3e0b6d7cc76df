"""A run in its folder: what it writes, what it tells its callbacks, and where it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import final

from torch.optim import AdamW

from modalign.objectives.base import Predictions
from modalign.training.average import Average
from modalign.training.callbacks import Event, Snapshot, notify
from modalign.training.card import resolved, write_card
from modalign.training.hub import push
from modalign.training.parts import Parts
from modalign.training.resume import Progress, capture, digests, restore
from modalign.training.samples import data_facts, write_bad_rows
from modalign.training.storage.checkpoint import latest, load_checkpoint, save_checkpoint, set_aside_after
from modalign.training.storage.predictions import forget_after, keep
from modalign.training.storage.runfolder import RunFolder


@contextmanager
def open_folder(parts: Parts) -> Iterator[RunFolder]:
    """The run folder, held by the first process for all; with what is known before the first step in it."""
    config = parts.config
    folder = RunFolder(config.output_dir)
    with ExitStack() as stack:

        def enter() -> None:
            nonlocal folder
            folder = stack.enter_context(
                RunFolder.open(
                    config.output_dir,
                    overwrite=config.overwrite_output_dir,
                    resume=config.resume_from_checkpoint is not None,
                )
            )
            folder.write_config(resolved(config, parts.objective))
            folder.write_run_info(world_size=parts.ranks.world, device=str(parts.ranks.device))
            write_bad_rows(parts.data, folder.bad_rows)

        parts.ranks.on_main(enter)
        yield folder


@final
class Session:
    """One run between opening its folder and its end.

    parts: what it is made of.
    folder: open in the first process.
    optimizer: of the model.
    average: of what trains; None where none is kept.
    """

    def __init__(self, parts: Parts, folder: RunFolder, optimizer: AdamW) -> None:
        self.parts, self.folder, self.optimizer = parts, folder, optimizer
        self.progress = Progress()
        decay = parts.config.ema_decay
        self.average = None if decay is None else Average(parts.model.trainable(), decay)
        self._stands_on = digests(parts)
        parts.ranks.agree("what the run stands on", dict(self._stands_on))

    @property
    def epoch(self) -> float:
        """Passes over the data."""
        plan = self.parts.plan
        return min(self.progress.step * plan.together, plan.total) / len(self.parts.data)

    def resume(self) -> None:
        """Go on from the checkpoint that the config names, if there is one."""
        ranks, wanted = self.parts.ranks, self.parts.config.resume_from_checkpoint
        if wanted is None:
            return
        found: list[Path] = []

        def look() -> None:
            path = latest(self.folder.checkpoints) if wanted == "auto" else Path(wanted)
            found.extend([path] if path is not None else [])

        ranks.on_main(look)
        said = ranks.gather(str(found[0].absolute()) if found else None)[0]
        if said is not None:
            self.progress = restore(
                self.parts, self.optimizer, self.average, load_checkpoint(Path(str(said))), self._stands_on
            )

        def forget() -> None:  # what the run did after that checkpoint will be done again
            set_aside_after(self.folder.checkpoints, self.progress.step)
            step, evaluated = self.progress.step, self.progress.evaluated
            forget_after(self.folder.path, step)
            self.folder.metrics.truncate_after(step, owed=None if evaluated == step else "eval_loss")

        ranks.on_main(forget)

    def write(self, event: Event, row: dict[str, float]) -> None:
        """Add a row of metrics, and tell callbacks of it."""
        self.parts.ranks.on_main(lambda: self.folder.metrics.append(self.progress.step, row))
        self.tell(event, row)

    def keep(self, predictions: Mapping[str, Predictions]) -> None:
        """Put what an evaluation predicted into the folder, in place of what the one before it did."""
        self.parts.ranks.on_main(lambda: keep(self.folder.path, predictions, step=self.progress.step))

    def tell(self, event: Event, metrics: dict[str, float] | None = None) -> None:
        """Tell callbacks of an event."""
        run = Snapshot(
            step=self.progress.step,
            steps=self.parts.plan.steps,
            epoch=self.epoch,
            metrics=MappingProxyType(dict(metrics or {})),
            folder=self.folder.path,
            config=self.parts.config,
            main=self.parts.ranks.main,
        )
        notify(self.parts.callbacks, event, run)

    def save(self) -> None:
        """Commit a checkpoint."""
        state = capture(self.parts, self.optimizer, self.average, self.progress, self._stands_on)

        def commit() -> None:
            self.folder.metrics.sync()
            save_checkpoint(self.folder.checkpoints, state, keep=self.parts.config.save_total_limit)

        self.parts.ranks.on_main(commit)
        self.tell("on_save")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model has the weights that count: the averaged ones, where an average is kept."""
        with nullcontext() if self.average is None else self.average.standing():
            yield

    def finish(self) -> None:
        """Write the final model and its card, and upload them where the config says so."""
        if self.average is not None:
            self.average.take()
        self.parts.ranks.on_main(self._finish)

    def _finish(self) -> None:
        parts, folder = self.parts, self.folder
        merge = parts.config.merge_adapter
        card = write_card(
            parts.config,
            parts.objective,
            self.progress.metrics,
            steps=self.progress.step,
            data=data_facts(parts.data),
            adapted=parts.model.assembly.adapters is not None and not merge,
        )
        draft = folder.path / "tmp-final"
        shutil.rmtree(draft, ignore_errors=True)
        parts.model.save(draft, merge=merge)
        for path in (draft / "README.md", folder.card):
            path.write_text(card, encoding="utf-8")
        if folder.final.exists():
            shutil.rmtree(folder.final)
        draft.rename(folder.final)  # so that a kill while it is written leaves no half of a model by that name
        if parts.config.push_to_hub:
            push(folder.final, parts.config)
