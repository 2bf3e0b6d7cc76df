"""Every family of generators with every objective: each cell is a short run of the trainer, and must keep its laws.

    python benchmarks/generator_matrix.py                              # on the screen; exits 1 if a cell fails
    python benchmarks/generator_matrix.py --write docs/generator-matrix.md
    python benchmarks/generator_matrix.py --rows sd,wan --columns dpo,orpo

The pipelines are tiny and random: the matrix says that the parts fit and the mathematics holds, not that a model has
learnt anything.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar, final

import diffusers
import torch

from modalign import objectives
from modalign.draws import Draws
from modalign.errors import ModalignError, ModelError
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign.loading import load
from modalign.model import Model
from modalign.objectives import Objective
from modalign.testing.case import require
from modalign.training import Trainer
from modalign.training.storage.metricslog import read_metrics
from modalign_audio.generators import cases as sounds
from modalign_image.generators import cases as pictures
from modalign_video.generators import cases as clips

YES, REFUSED = "yes", "refused"
STEPS: Final = 2

_VERSIONS: Final = ("modalign", "torch", "diffusers", "transformers", "peft")

_PAGE = """\
# Generators and objectives

Every family of generators, with every objective that asks for likelihoods. `python benchmarks/generator_matrix.py
--write docs/generator-matrix.md` wrote this page on {day}: {versions}; {good} of {all} cells hold.

{cells}

The pipelines are those of the families' own tests: every part of the real ones, tiny and random. What begins with the
name of another row is its family again: one that predicts v (`sd-v`), makes the longest sound it can (`-whole`), was
distilled (`-turbo`), is told the time of each token (`-expanded`), has another sampler, decoder or positions. Each cell
is a run of `Trainer` over two pairs of the oracle world in that modality: {steps} optimizer steps with a batch of both,
LoRA of rank 2 on the network. So a cell says that the parts fit and the mathematics holds, not that a model has learnt
anything.

A cell says yes when all of this held. Else it says why not.

- The first loss is its closed form (below), to 1e-9: new adapters change nothing.
- Every loss is finite, and so is every gradient.
- Adapters move, and nothing else does, to the last bit: not the network, the autoencoder or the text encoders.
- The adapters that the run left in `final/` load again, and are those it ended with.

{laws}

A cell says refused when the objective needs the normalised likelihood of a response, and says so in words before it
trains: a draw is a bound. Objectives that train reward heads ({judges})
refuse every generator, which has no states that a head could read; what a generator makes is judged by
[models that read media](media-matrix.md). `reward_weighted`, which is SFT with weights, `draft` and `refl` have tests
of their own and no column.

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
    start: its loss at equal scores; None where that is the loss of the pipeline itself.
    form: the same as a formula.
    """

    name: str
    title: str
    objective: Objective
    start: float | None
    form: str


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


_Named = TypeVar("_Named", Row, Column)

#: Objectives of the core that ask decoders and have no column, and what tries them.
ELSEWHERE: Final = {
    "reward_weighted": "tests/core/objectives/test_reward_weighted.py",
    "draft": "tests/test_reward_gradient.py",
    "refl": "tests/test_reward_gradient.py",
}

COLUMNS: Final = (
    Column(
        name="sft", title="imitation", objective=objectives.SFT(), start=None, form="1/2 sum (prediction - target)^2"
    ),
    Column(name="dpo", title="preference", objective=objectives.DPO(), start=math.log(2), form="log 2"),
    Column(name="ipo", title="preference", objective=objectives.IPO(), start=25.0, form="1 / (4 beta^2)"),
    Column(name="kto", title="labels", objective=objectives.KTO(), start=0.5, form="1/2"),
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
        try:
            return _tried(row.made(Path(folder) / "pipeline"), column, Path(folder))
        except Exception as error:
            kind = "" if isinstance(error, ModalignError) else f"{type(error).__name__}: "
            return f"no: {kind}{' '.join(str(error).split())[:200]}"


def _tried(laws: FamilyLaws, column: Column, folder: Path) -> str:
    if "draw" not in column.objective.needs.kinds:
        return _refused(laws, column, folder)
    model = laws.model(adapter=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = _imitated(laws, column.objective) if column.start is None else column.start
    run = _trainer(laws, model, column, folder).train()
    said = read_metrics(run.folder / "metrics.jsonl")
    losses, norms = [one["loss"] for one in said], [one["grad_norm"] for one in said]
    require(len(losses) == STEPS, f"{STEPS} steps must give a loss each; found: {losses}")
    require(all(map(math.isfinite, (*losses, *norms))), f"losses must be finite; found: {losses}, gradients {norms}")
    equal = math.isclose(losses[0], start, rel_tol=1e-9)
    require(equal, f"at equal scores the loss must be {start}; found: {losses[0]}")
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    require(bool(moved), "adapters must move")
    require(all("lora_" in name for name in moved), f"nothing but adapters may move; found: {sorted(moved)[:3]}")
    again = load(str(run.folder / "final"), options=laws.options).trainable()
    trained = model.trainable()
    require(
        again.keys() == trained.keys() and all(value.equal(trained[name]) for name, value in again.items()),
        "the adapters that were saved must load again",
    )
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
        data=laws.rows,
        output_dir=folder / "run",
        max_steps=STEPS,
        per_device_train_batch_size=len(laws.rows),
        learning_rate=1e-3,
        quiet=True,
    )


def _imitated(laws: FamilyLaws, objective: Objective) -> float:
    """The loss of the pipeline without adapters, at the draws of a run's first step."""
    model = laws.model()
    batch = laws.batch(model, objective)
    with torch.no_grad():
        return objective({"policy": model(batch, Draws(seed=0, epoch=0))}, batch.targets).mean.item()


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
        versions=", ".join(
            f"{one} {version(one)}" for one in ("modalign", "torch", "diffusers", "transformers", "peft")
        ),
        good=sum(said in (YES, REFUSED) for said in cells.values()),
        all=len(cells),
        cells=_table(head, body),
        steps=STEPS,
        laws=_table(["objective", "for", "loss at equal scores"], laws),
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


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *([one.replace("|", "/") for one in row] for row in body)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _chosen(known: Sequence[_Named], names: str | None, what: str) -> list[_Named]:
    there = {one.name for one in known}
    wanted = there if names is None else set(names.split(","))
    if unknown := sorted(wanted - there):
        sys.exit(f"no {what} {unknown[0]!r}; there are: {', '.join(sorted(there))}")
    return [one for one in known if one.name in wanted]


def main() -> None:
    """Try the cells, say or write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page; takes every row and column")
    parser.add_argument("--rows", help="names of families, with commas between")
    parser.add_argument("--columns", help="names of objectives, with commas between")
    args = parser.parse_args()
    if args.write and (args.rows or args.columns):
        parser.error("--write takes every row and column")
    rows, columns = _chosen(ROWS, args.rows, "row"), _chosen(COLUMNS, args.columns, "column")
    torch.set_num_threads(1)
    without_torchsde()
    cells: dict[tuple[str, str], str] = {}
    for row in rows:
        for column in columns:
            began = time.perf_counter()
            said = cells[row.name, column.name] = tried(row, column)
            print(
                f"{row.name:20} {row.modality:6} {column.name:6} {time.perf_counter() - began:5.1f} s  {said}",
                flush=True,
            )
    if args.write:
        args.write.write_text(page(cells, rows, columns, date.today()), encoding="utf-8")
    sys.exit(any(said not in (YES, REFUSED) for said in cells.values()))


if __name__ == "__main__":
    main()
