"""Every task of align-anything's data with every objective that it has: each cell is trained, and must learn.

    python benchmarks/task_matrix.py                              # on the screen; exits 1 if a cell fails
    python benchmarks/task_matrix.py --write docs/task-matrix.md
    python benchmarks/task_matrix.py --rows text-to-image --columns dpo,reward

The models are tiny and random, the rows are in the public layout of the data, their media are the oracle world's.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final, final

from matrices import YES, check_run, command, said, table, versions
from modalign import objectives
from modalign.config import AdapterConfig
from modalign.data import read
from modalign.loading import load
from modalign.objectives import Objective
from modalign.testing.case import require
from modalign.training import Trainer
from modalign_audio.generators.testing import audioldm2
from modalign_image.generators.testing_unet import stable_diffusion
from modalign_text.align_anything_sample import sample
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.generators.testing import wan

STEPS: Final = 8
ROWS_READ: Final = 6  #: of which every third has no preference

_PAGE = """\
# Tasks and objectives

Every task that align-anything has preferences for, with each kind of training. `python benchmarks/task_matrix.py
--write docs/task-matrix.md` wrote this page on {day}: {versions}; {good} of {all} cells hold.

{cells}

Each cell is `modalign train` in Python: rows in the published layout of that subset, with media beside them, read as
they are; {steps} optimizer steps with LoRA on a tiny random model. It says yes when all of this held, else why not.

- The first loss is its closed form where it has one: `log 2` of `dpo`, `1/2` of `kto`.
- Losses and gradients are finite. Adapters and reward heads move, and nothing else does, to the last bit.
- The loss over all rows is lower after training than before; of generators with the same draws of noise.
- What the run saved loads again, and is what it ended with.

| task | subset | model that answers | model that judges |
| --- | --- | --- | --- |
{models}

A reward model reads the responses of its task: words, or the pictures, sounds and clips that generators made.
[Media and objectives](media-matrix.md) and [generators and objectives](generator-matrix.md) try every family and every
objective.
"""


@final
@dataclass(frozen=True, kw_only=True)
class Maker:
    """A tiny model.

    name: of its family.
    make: writes it into an empty folder.
    options: settings of a generator.
    """

    name: str
    make: Callable[[Path], Path]
    options: Mapping[str, object] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One task.

    name: from what to what.
    subset: of align-anything.
    answers: the model that gives the responses.
    judges: the model that reads them.
    """

    name: str
    subset: str
    answers: Maker
    judges: Maker

    @property
    def key(self) -> str:
        return self.name


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """One objective.

    name: as `modalign train` calls it.
    objective: with the settings it is tried with.
    start: its loss at equal scores; None where it has no closed form.
    """

    name: str
    objective: Objective
    start: float | None = None


def _reader(family: str) -> Maker:
    return Maker(name=family, make=lambda folder: tiny_multimodal(folder, family, scale=4.0))


_WORDS: Final = Maker(name="llama", make=partial(tiny_model, scale=4.0))
_SEES, _HEARS, _WATCHES = (_reader(one) for one in ("llava", "qwen2_audio", "qwen2_5_vl"))
_SIZE: Final = {"height": 16, "width": 16}
_PAINTS: Final = Maker(name="Stable Diffusion", make=stable_diffusion, options=_SIZE)
_SOUNDS: Final = Maker(name="AudioLDM 2", make=audioldm2, options={"seconds": 0.32})
_FILMS: Final = Maker(name="Wan", make=wan, options={**_SIZE, "num_frames": 5, "fps": 8})

ROWS: Final = (
    Row(name="text-to-text", subset="t2t", answers=_WORDS, judges=_WORDS),
    Row(name="text-image-to-text", subset="ti2t", answers=_SEES, judges=_SEES),
    Row(name="text-audio-to-text", subset="ta2t", answers=_HEARS, judges=_HEARS),
    Row(name="text-video-to-text", subset="tv2t", answers=_WATCHES, judges=_WATCHES),
    Row(name="text-to-image", subset="t2i", answers=_PAINTS, judges=_SEES),
    Row(name="text-to-audio", subset="t2a", answers=_SOUNDS, judges=_HEARS),
    Row(name="text-to-video", subset="t2v", answers=_FILMS, judges=_WATCHES),
)

COLUMNS: Final = (
    Column(name="sft", objective=objectives.SFT()),
    Column(name="reward", objective=objectives.BradleyTerry()),
    Column(name="dpo", objective=objectives.DPO(), start=math.log(2)),
    Column(name="kto", objective=objectives.KTO(), start=0.5),
)


def tried(row: Row, column: Column) -> str:
    """What a cell says: `YES`, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        return said(lambda: _tried(row, column, Path(folder)))


def _tried(row: Row, column: Column, folder: Path) -> str:
    maker = row.answers if column.objective.needs.units else row.judges
    place, file = maker.make(folder / "model"), sample(folder / "data", row.subset, ROWS_READ)
    data = read(file)
    require(data.format == "align_anything", f"the rows must be align-anything's; found: {data.format}")
    options = dict(maker.options)
    trainer = Trainer(
        model=load(str(place), options=options, adapter=AdapterConfig(r=4)),
        objective=column.objective,
        data=data,
        eval_data=read(file),
        output_dir=folder / "run",
        max_steps=STEPS,
        per_device_train_batch_size=ROWS_READ,
        per_device_eval_batch_size=ROWS_READ,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        quiet=True,
    )
    before = trainer.evaluate()["eval_loss"]
    check_run(trainer, column.start, ("lora_", "heads."), lambda saved: load(str(saved), options=options))
    after = trainer.evaluate()["eval_loss"]
    require(after < before, f"training must lower the loss over all rows; found: {before:.6g}, then {after:.6g}")
    return YES


def page(cells: Mapping[tuple[str, str], str], rows: Sequence[Row], columns: Sequence[Column], day: date) -> str:
    """The table and what it means, in Markdown.

    cells: what each says, by the names of row and column.
    day: when it was measured.
    """
    head = ["task", *(f"`{one.name}`" for one in columns)]
    models = [[one.name, f"`{one.subset}`", one.answers.name, one.judges.name] for one in rows]
    return _PAGE.format(
        day=day.isoformat(),
        versions=versions("diffusers", "transformers", "peft"),
        good=sum(one == YES for one in cells.values()),
        all=len(cells),
        cells=table(head, [[row.name, *(cells[row.name, one.name] for one in columns)] for row in rows]),
        steps=STEPS,
        models="\n".join(f"| {' | '.join(one)} |" for one in models),
    )


def main() -> None:
    """Try the cells, say or write what came of them."""
    command(__doc__, ROWS, COLUMNS, tried, page)


if __name__ == "__main__":
    main()
