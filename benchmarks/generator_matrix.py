"""Every family of generators with every objective: each cell is a short run of the trainer, and must keep its laws.

    python benchmarks/generator_matrix.py                              # on the screen; exits 1 if a cell fails
    python benchmarks/generator_matrix.py --write docs/generator-matrix.md
    python benchmarks/generator_matrix.py --rows sd,wan --columns dpo,orpo

The pipelines are tiny and random: the matrix says that the parts fit and the mathematics holds, not that a model has
learnt anything.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final, final

import diffusers
import torch

from matrices import REFUSED, YES, check_run, command, said, table, versions
from modalign import objectives
from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign.loading import load
from modalign.model import Model
from modalign.objectives import Objective
from modalign.testing.case import require
from modalign.training import Trainer
from modalign_audio.generators import cases as sounds
from modalign_image.generators import cases as pictures
from modalign_video.generators import cases as clips

STEPS: Final = 2

_PAGE = """\
# Generators and objectives

Every family of generators, with every objective that asks a decoder. `python benchmarks/generator_matrix.py
--write docs/generator-matrix.md` wrote this page on {day}: {versions}; {good} of {all} cells hold.

{cells}

The pipelines are those of the families' own tests: every part of the real ones, tiny and random. What begins with the
name of another row is its family again: one that predicts v (`sd-v`), makes the longest sound it can (`-whole`), was
distilled (`-turbo`), is told the time of each token (`-expanded`), has another sampler, decoder or positions. Each cell
is a run of `Trainer` over two pairs of the oracle world in that modality: {steps} optimizer steps with a batch of both,
LoRA of rank 2 on the network. So a cell says that the parts fit and the mathematics holds, not that a model has learnt
anything.

A cell says yes when all of this held. Else it says why not.

- The first loss is its closed form (below) to 1e-9, or that of the bare pipeline to 1e-6: new adapters change nothing.
- Every loss is finite, and so is every gradient.
- Adapters move, and nothing else does, to the last bit: not the network, the autoencoder or the text encoders.
- The adapters that the run left in `final/` load again, and are those it ended with.

{laws}

A cell says refused when the objective needs the normalised likelihood of a response, and says so in words before it
trains: a draw is a bound. Objectives that train reward heads ({judges})
refuse every generator, which has no states that a head could read; what a generator makes is judged by
[models that read media](media-matrix.md). Where the loss is a reward's, it is that of what the pipeline makes without
adapters: the mean square of a medium's values, by {steps} steps of its own sampler, through whose last one the gradient
comes back.

Stable Audio's sampler needs torchsde. Where that is not installed the command puts an empty module in its place:
training draws no such noise.

Beyond a run, the laws of each family are tests: its latents, its predictions and what it writes are those of its own
pipeline, and its adapters work in diffusers. [Media out](generators.md) says how to train one,
[Objectives](objectives.md) has the equations.
"""


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """One objective.

    name: as `modalign train` calls it.
    title: what it is for.
    objective: with the settings it is tried with.
    start: its loss at equal scores; None where that is the loss of the pipeline itself, without adapters.
    form: the same as a formula.
    close: how near it must be, relative; 1e-6 where it is found by a forward pass of its own, in float32.
    """

    name: str
    title: str
    objective: Objective
    start: float | None
    form: str
    close: float = 1e-9


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One family.

    name: of its case.
    modality: what it makes.
    made: makes its tiny pipeline in an empty folder.
    """

    name: str
    modality: str
    made: Callable[[Path], FamilyLaws]

    @property
    def key(self) -> str:
        return self.name


def energy(prompts: list[str], media: torch.Tensor) -> torch.Tensor:
    """A reward that follows every value of a medium."""
    return media.flatten(1).square().mean(1)


COLUMNS: Final = (
    Column(
        name="sft",
        title="imitation",
        objective=objectives.SFT(),
        start=None,
        form="1/2 sum (prediction - target)^2",
        close=1e-6,
    ),
    Column(name="dpo", title="preference", objective=objectives.DPO(), start=math.log(2), form="log 2"),
    Column(name="ipo", title="preference", objective=objectives.IPO(), start=25.0, form="1 / (4 beta^2)"),
    Column(name="kto", title="labels", objective=objectives.KTO(), start=0.5, form="1/2"),
    Column(
        name="reward_weighted",
        title="rewards of what there is",
        objective=objectives.RewardWeighted(),
        start=None,
        form="1/2 sum weight (prediction - target)^2",
        close=1e-6,
    ),
    Column(
        name="draft",
        title="the gradient of a reward",
        objective=objectives.DRaFT(reward=energy, num_inference_steps=STEPS),
        start=None,
        form="-reward",
        close=1e-6,
    ),
    Column(
        name="refl",
        title="the gradient of a reward",
        objective=objectives.ReFL(reward=energy, num_inference_steps=STEPS, earliest=0.5),
        start=None,
        form="-reward",
        close=1e-6,
    ),
    Column(name="simpo", title="preference", objective=objectives.SimPO(), start=None, form=REFUSED),
    Column(name="orpo", title="preference", objective=objectives.ORPO(), start=None, form=REFUSED),
)

ROWS: Final = tuple(
    Row(name=name, modality=modality, made=made)
    for modality, plugin in (("image", pictures), ("audio", sounds), ("video", clips))
    for name, made in plugin.CASES.items()
)


def tried(row: Row, column: Column) -> str:
    """What a cell says: `YES`, `REFUSED`, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        return said(lambda: _tried(row.made(Path(folder) / "pipeline"), column, Path(folder)))


def _tried(laws: FamilyLaws, column: Column, folder: Path) -> str:
    if "draw" not in column.objective.needs.kinds:
        return _refused(laws, column, folder)
    model = laws.model(adapter=True)
    start = _unadapted(laws, column.objective) if column.start is None else column.start
    trainer = _trainer(laws, model, column, folder)
    check_run(trainer, start, ("lora_",), lambda saved: load(str(saved), options=laws.options), close=column.close)
    return YES


def _refused(laws: FamilyLaws, column: Column, folder: Path) -> str:
    try:
        _trainer(laws, laws.model(adapter=True), column, folder)
    except ModelError as error:
        require("needs a normalised likelihood" in str(error), f"it must say why; found: {error}")
        return REFUSED
    return "no: it trains on what is a bound"


def _trainer(laws: FamilyLaws, model: Model, column: Column, folder: Path) -> Trainer:
    return Trainer(
        model=model,
        objective=column.objective,
        data=rewarded(laws),
        output_dir=folder / "run",
        max_steps=STEPS,
        per_device_train_batch_size=len(laws.rows),
        learning_rate=1e-3,
        quiet=True,
    )


def rewarded(laws: FamilyLaws) -> list[Comparison]:
    """Its pairs, of which the chosen response has a higher reward."""
    return [
        replace(row, responses=tuple(replace(one, reward=1.0 - at) for at, one in enumerate(row.responses)))
        for row in laws.rows
    ]


def _unadapted(laws: FamilyLaws, objective: Objective) -> float:
    """The loss of the pipeline without adapters, at the draws of a run's first step."""
    model = laws.model()
    samples = [encode(row, model.assembly.preparer, objective.needs) for row in rewarded(laws)]
    batch = assemble(samples, share=model.shares)
    with torch.no_grad():
        scores = model(batch, Draws(seed=0, epoch=0), objective.backprop())
        return objective({"policy": scores}, batch.targets).mean.item()


def page(cells: Mapping[tuple[str, str], str], rows: Sequence[Row], columns: Sequence[Column], day: date) -> str:
    """The table and what it means, in Markdown.

    cells: what each says, by the names of row and column.
    day: when it was measured.
    """
    head = ["family", "makes", *(f"`{one.name}`" for one in columns)]
    body = [[f"`{row.name}`", row.modality, *(cells[row.name, one.name] for one in columns)] for row in rows]
    laws = [[f"`{one.name}`", one.title, f"`{one.form}`"] for one in columns if one.form != REFUSED]
    return _PAGE.format(
        day=day.isoformat(),
        versions=versions("diffusers", "transformers", "peft"),
        good=sum(one in (YES, REFUSED) for one in cells.values()),
        all=len(cells),
        cells=table(head, body),
        steps=STEPS,
        laws=table(["objective", "for", "loss at equal scores"], laws),
        judges=", ".join(f"`{name}`" for name in judges()),
    )


def judges() -> list[str]:
    """Names of our objectives that ask no decoder."""
    from modalign.registry import registry

    own = [name for name, one in registry.entries("objectives").items() if one.plugin == "core"]
    return [name for name in own if not registry.objective(name).needs.units]


def without_torchsde() -> None:
    """Let the scheduler that needs torchsde be imported where that is not installed, until the program ends."""
    if find_spec("torchsde") is not None:
        return
    empty = sys.modules["torchsde"] = ModuleType("torchsde")
    empty.__spec__ = ModuleSpec("torchsde", None)
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as module

    # it is a placeholder in the package itself, where the classes that a pipeline's index names are looked up
    name = "CosineDPMSolverMultistepScheduler"
    setattr(diffusers, name, getattr(module, name))


def main() -> None:
    """Try the cells, say or write what came of them."""
    without_torchsde()
    command(__doc__, ROWS, COLUMNS, tried, page, good=(YES, REFUSED))


if __name__ == "__main__":
    main()
