"""Every task, from what to what, with SFT, reward, DPO and KTO: each cell is trained, and must learn.

    python benchmarks/task_matrix.py                              # on the screen; exits 1 if a cell fails
    python benchmarks/task_matrix.py --write docs/task-matrix.md
    python benchmarks/task_matrix.py --rows text-to-image --columns dpo,reward

The models are tiny and random. Rows are in the public layout of align-anything where it has the task, else messages
with media; the media are the oracle world's. Rows of a plugin that modalign does not bring are tried where it is
installed (`pip install -e contrib/action`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, final

from matrices import YES, check_run, command, said, table, versions
from modalign import objectives
from modalign.comparison import Comparison
from modalign.composing import compose
from modalign.config import AdapterConfig
from modalign.content import Message, Part, Response
from modalign.data import read
from modalign.draws import DrawConfig
from modalign.loading import load
from modalign.objectives import Objective
from modalign.registry import registry
from modalign.testing.case import require
from modalign.training import Trainer
from modalign.world.concept import concepts
from modalign_audio.generators.testing import audioldm2
from modalign_audio.testing import tiny_audio
from modalign_image.generators.testing_unet import stable_diffusion
from modalign_image.testing import tiny_vision
from modalign_text.align_anything_sample import sample
from modalign_text.multimodal.testing import tiny_multimodal
from modalign_text.testing import tiny_model
from modalign_video.generators.testing import wan
from modalign_video.testing import tiny_video

STEPS: Final = 8
_WEIGHT: Final = 0.05  #: of a medium beside a token
_MOVES: Final = (
    *("lora_", "heads.", "connectors.", ".conditioner.", "trainable_tokens"),
    *("encoders.action.", "decoders.action.table.", "decoders.action.head."),  # new, as what connects
)
NOT_TRIED: Final = "not tried"  #: of a row whose plugin is not installed
ROWS_READ: Final = 6  #: of which every third has no preference

_PAGE = """\
# Tasks and objectives

Every task that align-anything has, and more, with each kind of training. `python benchmarks/task_matrix.py
--write docs/task-matrix.md` wrote this page on {day}: {versions}; {good} of {all} cells hold.

{cells}

Each cell is `modalign train` in Python: {steps} optimizer steps with LoRA on a tiny random model. Where a subset of
align-anything is named, rows are in its published layout, with media beside them, and read as they are; else they are
messages with media of the oracle world. It says yes when all of this held, else why not.

- The first loss is its closed form where it has one: `log 2` of `dpo`, `1/2` of `kto`.
- Losses and gradients are finite. Adapters and reward heads move, connectors, what conditions a generator and what
  reads and scores codes where there are some, and nothing else does, to the last bit.
- The loss over all rows is lower after training than before; of generators with the same draws of noise.
- What the run saved loads again, and is what it ended with.

| task | subset | model that answers | model that judges |
| --- | --- | --- | --- |
{models}

A reward model reads the responses of its task: words, or the pictures, sounds and clips that generators made. Models of
several parts are [put together](composing.md): towers, a language model, generators.
Actions of robots come by a plugin that modalign does not know, `contrib/action`; its rows are tried where it is
installed. [Media and objectives](media-matrix.md) and [generators and objectives](generator-matrix.md) try every
family and every objective.
"""


@final
@dataclass(frozen=True, kw_only=True)
class Maker:
    """A tiny model.

    name: of its family.
    make: writes it into an empty folder.
    options: settings of a generator.
    rate, draws: learning rate and draws of noise of each medium, with which eight steps show that it learns.
    """

    name: str
    make: Callable[[Path], Path]
    options: Mapping[str, object] = field(default_factory=dict)
    rate: float = 5e-3
    draws: int = 2


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One task.

    name: from what to what.
    subset: of align-anything; None where it has none.
    answers: the model that gives the responses.
    judges: the model that reads them.
    asks, gives: modalities of prompt and responses beside and among words, where the rows are of the oracle world.
    plugin: in `contrib`, without which it cannot be tried.
    """

    name: str
    answers: Maker
    judges: Maker
    subset: str | None = None
    asks: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    plugin: str | None = None

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

_TOWERS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "image": lambda folder: tiny_vision(folder, "clip"),
    "audio": lambda folder: tiny_audio(folder, "whisper"),
    "video": lambda folder: tiny_video(folder, "frames-over-clip"),
}
_KINDS: Final = {"image": "vision", "audio": "audio", "video": "frames"}
_GENERATORS: Final[Mapping[str, Maker]] = {"image": _PAINTS, "audio": _SOUNDS, "video": _FILMS}


def _whole(reads: Sequence[str], makes: Sequence[str] = ()) -> Maker:
    """A Llama with a tower for each modality that it reads, and a generator for each that it makes."""

    def make(folder: Path) -> Path:
        apart = folder.with_name("parts")
        encoders = {name: {"path": str(_TOWERS[name](apart / name)), "type": _KINDS[name]} for name in reads}
        decoders = {
            name: {
                "path": str(_GENERATORS[name].make(apart / f"{name}-generator")),
                "options": dict(_GENERATORS[name].options),
                "connector": {"queries": 4, "heads": 4},
                "weight": _WEIGHT,
            }
            for name in makes
        }
        compose(tiny_model(apart / "words", scale=4.0), encoders=encoders, decoders=decoders).save(folder)
        return folder

    said = [*(f"{name} tower" for name in reads), "llama", *(f"{_GENERATORS[name].name}" for name in makes)]
    return Maker(name=" + ".join(said), make=make, rate=2e-3, draws=6)


def _task(asks: Sequence[str], gives: Sequence[str], *, subset: str | None = None) -> Row:
    """A task of a model that is put together."""
    reads = sorted({*asks, *(name for name in gives if name != "text")})
    makes = [name for name in gives if name != "text"]
    return Row(
        name=f"{'-'.join(('text', *asks))}-to-{'-'.join(gives)}",
        answers=_whole(asks, makes),
        judges=_whole(reads),
        subset=subset,
        asks=tuple(asks),
        gives=tuple(gives),
    )


def _arm(kind: str, *, rate: float) -> Row:
    """Video to actions, by the plugin in `contrib/action`.

    kind: `bins`, which the language model writes, or `flow`, of an expert behind it.
    """

    def tower(folder: Path) -> dict[str, object]:
        return {"path": str(_TOWERS["video"](folder / "video")), "type": _KINDS["video"]}

    def answers(folder: Path) -> Path:
        from modalign_action.testing import tiny_expert

        apart = folder.with_name("parts")
        action: dict[str, object] = {"path": str(tiny_expert(apart / "action"))}
        flow = {"connector": {"queries": 4, "heads": 4}, "weight": _WEIGHT}
        action |= {"type": "action-bins"} if kind == "bins" else flow
        words = tiny_model(apart / "words", scale=4.0)
        compose(words, encoders={"video": tower(apart)}, decoders={"action": action}).save(folder)
        return folder

    def judges(folder: Path) -> Path:
        from modalign_action.testing import tiny_space

        apart = folder.with_name("parts")
        tiny_space().save(apart / "action")
        action = {"path": str(apart / "action"), "options": {"width": 32}}
        words = tiny_model(apart / "words", scale=4.0)
        compose(words, encoders={"video": tower(apart), "action": action}).save(folder)
        return folder

    return Row(
        name=f"text-video-to-action-{kind}",
        answers=Maker(name=f"video tower + llama + {_ACTIONS[kind]}", make=answers, rate=rate, draws=6),
        judges=Maker(name="action encoder + video tower + llama", make=judges, rate=2e-3),
        asks=("video",),
        gives=("action",),
        plugin="action",
    )


_ACTIONS: Final = {"bins": "bins of actions", "flow": "flow of actions"}


def _draws(family: str, name: str, asks: Sequence[str], gives: Sequence[str]) -> Row:
    """A task of one checkpoint that reads pictures and draws them."""
    model = Maker(name=name, make=lambda folder: tiny_multimodal(folder, family, scale=4.0))
    task = f"{'-'.join(('text', *asks))}-to-{'-'.join(gives)} ({name})"
    return Row(name=task, answers=model, judges=model, asks=tuple(asks), gives=tuple(gives))


ROWS: Final = (
    Row(name="text-to-text", subset="t2t", answers=_WORDS, judges=_WORDS),
    Row(name="text-image-to-text", subset="ti2t", answers=_SEES, judges=_SEES),
    Row(name="text-audio-to-text", subset="ta2t", answers=_HEARS, judges=_HEARS),
    Row(name="text-video-to-text", subset="tv2t", answers=_WATCHES, judges=_WATCHES),
    Row(name="text-to-image", subset="t2i", answers=_PAINTS, judges=_SEES),
    Row(name="text-to-audio", subset="t2a", answers=_SOUNDS, judges=_HEARS),
    Row(name="text-to-video", subset="t2v", answers=_FILMS, judges=_WATCHES),
    _task(["image"], ["text", "image"], subset="ti2ti"),
    _task(["image"], ["image"]),
    _task(["audio"], ["audio"]),
    _task(["image"], ["video"]),
    _task(["video"], ["audio"]),
    _task(["image", "audio", "video"], ["text", "image", "audio", "video"]),
    _arm("bins", rate=5e-3),
    _arm("flow", rate=5e-3),
    _draws("janus", "Janus", [], ["image"]),
    _draws("janus", "Janus", ["image"], ["text", "image"]),
    _draws("emu3", "Emu3", [], ["image"]),
    _draws("emu3", "Emu3", ["image"], ["text", "image"]),
    _draws("chameleon", "Chameleon", [], ["image"]),
    _draws("chameleon", "Chameleon", ["image"], ["text", "image"]),
)

COLUMNS: Final = (
    Column(name="sft", objective=objectives.SFT()),
    Column(name="reward", objective=objectives.BradleyTerry()),
    Column(name="dpo", objective=objectives.DPO(), start=math.log(2)),
    Column(name="kto", objective=objectives.KTO(), start=0.5),
)


def tried(row: Row, column: Column) -> str:
    """What a cell says: `YES`, `NOT_TRIED` where its plugin is not installed, or why not."""
    if row.plugin is not None and row.plugin not in registry.entries("modalities"):
        return NOT_TRIED
    with tempfile.TemporaryDirectory() as folder:
        return said(lambda: _tried(row, column, Path(folder)))


def _tried(row: Row, column: Column, folder: Path) -> str:
    maker = row.answers if column.objective.needs.units else row.judges
    place, source = maker.make(folder / "model"), rows_of(row, folder / "data")
    data = read(source)
    public = row.subset is None or data.format == "align_anything"
    require(public, f"the rows must be align-anything's; found: {data.format}")
    options = dict(maker.options)
    trainer = Trainer(
        model=load(str(place), options=options, adapter=AdapterConfig(r=4)),
        objective=column.objective,
        data=data,
        eval_data=read(source),
        output_dir=folder / "run",
        max_steps=STEPS,
        per_device_train_batch_size=ROWS_READ,
        per_device_eval_batch_size=ROWS_READ,
        learning_rate=maker.rate,
        draws=DrawConfig(count=maker.draws),
        lr_scheduler_type="constant",
        quiet=True,
    )
    before = trainer.evaluate()["eval_loss"]
    check_run(trainer, column.start, _MOVES, lambda saved: load(str(saved), options=options))
    after = trainer.evaluate()["eval_loss"]
    require(after < before, f"training must lower the loss over all rows; found: {before:.6g}, then {after:.6g}")
    return YES


def rows_of(row: Row, folder: Path) -> Path | list[Comparison]:
    """The rows of a task: of align-anything's layout in a folder, or of the oracle world in memory."""
    if row.subset is not None:
        return sample(folder, row.subset, ROWS_READ)
    return [_made(row, number) for number in range(ROWS_READ)]


def _made(row: Row, number: int) -> Comparison:
    """A pair: the chosen response shows what was asked for in each of its modalities, the rejected something else."""
    asked = [_shown(name, number) for name in row.asks]
    prompt = Message(role="user", parts=(*asked, Part(modality="text", value=f"Go on, number {number}:")))
    chosen, rejected = (
        Response(messages=(Message(role="assistant", parts=tuple(_shown(name, at) for name in row.gives)),))
        for at in (number, number + 7)
    )
    return replace(Comparison.pair([prompt], chosen, rejected), id=f"{row.name}-{number}")


def _shown(modality: str, number: int) -> Part:
    depiction = registry.depiction(modality)
    # the generator of sounds makes a third of a second, in which nothing late is heard
    every = [one for one in islice(concepts(depiction.attributes), 64) if one.time != "late"]
    return depiction.depict(every[number * 5 % len(every)], seed=number)


def page(cells: Mapping[tuple[str, str], str], rows: Sequence[Row], columns: Sequence[Column], day: date) -> str:
    """The table and what it means, in Markdown.

    cells: what each says, by the names of row and column.
    day: when it was measured.
    """
    head = ["task", *(f"`{one.name}`" for one in columns)]
    models = [
        [one.name, "" if one.subset is None else f"`{one.subset}`", one.answers.name, one.judges.name] for one in rows
    ]
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
    absent = {row.plugin for row in ROWS if row.plugin is not None} - registry.entries("modalities").keys()
    for plugin in sorted(absent):
        print(f"rows of {plugin} are not tried: pip install -e contrib/{plugin}")
    command(__doc__, ROWS, COLUMNS, tried, page, good=(YES, NOT_TRIED))


if __name__ == "__main__":
    main()
