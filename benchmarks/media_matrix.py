"""Every model that reads media with every objective: each cell is trained for one step, and every law is tried on it.

    python benchmarks/media_matrix.py                              # on the screen; exits 1 if a cell fails
    python benchmarks/media_matrix.py --write docs/media-matrix.md
    python benchmarks/media_matrix.py --rows llava --columns dpo,reward

The models are tiny and random, and so is everything they see: the matrix says that the parts fit and the mathematics
holds, not that a model has learnt anything.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import final

import modalign
from matrices import YES, command, said, table, versions
from modalign import objectives
from modalign.config import AdapterConfig
from modalign.model import Model
from modalign.objectives import Objective
from modalign_audio.testing import tiny_audio
from modalign_image.testing import tiny_vision
from modalign_text.multimodal.cases import CELLS, loaded
from modalign_text.multimodal.further import READS
from modalign_text.multimodal.laws import Cell
from modalign_text.testing import tiny_model
from modalign_video.testing import FRAMES, tiny_video

ADAPTER = AdapterConfig(r=2)

_PAGE = """\
# Media and objectives

Every kind of model that reads media, with every objective. `python benchmarks/media_matrix.py --write
docs/media-matrix.md` wrote this page on {day}: {versions}; {good} of {all} cells hold.

{cells}

The first rows are native checkpoints of their families, loaded whole; those with a plus are towers that a config puts
before a language model. All are tiny and random, with LoRA on the language model: a cell says that the parts fit and
the mathematics holds, not that a model of that size has learnt anything. Another family may work as well: what
transformers loads as a multimodal model is taken apart the same way and compared with itself when it is loaded. The
tests try Idefics3, InternVL, Qwen3-VL, Qwen3.5 and Mllama so, with DPO and as reward models.

A cell says yes when all of this held, on three pairs: one with a medium in its prompt, one with two in its history, one
with a different medium in each response. Else it says why not.

- At equal scores the loss is its closed form (below), to 1e-5.
- With new adapters the model is its base: every log-ratio and every difference of rewards is exactly 0.
- Responses as branches of one trunk score as rows of their own, to 1e-5.
- Another medium in one prompt changes the scores of its responses, and no others.
- One optimizer step lowers the loss of its own batch. Adapters, new connectors and heads move, nothing else does.
- In that step the tower runs once for each medium, for all responses, for policy and reference together. A family whose
  decoder looks at media itself (mllama) is the exception: its whole model runs for every row.
- After it the reference answers as before, to the last bit.
- Swapping the responses negates the margin; where each is judged alone, it changes nothing.

{laws}

`reward_weighted` has no column: it is SFT with weights, and has tests of its own; `draft` and `refl` are of generators.
`V` is the number of tokens. Pairs are judged by order, in two dimensions with a tie and a gap, by scores and by labels.
[Objectives](objectives.md) has the equations, [Media](media.md) says how to train on files of your own.
"""


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """One objective.

    name: as `modalign train` calls it.
    title: what it is for.
    objective: with the settings it is tried with.
    start: its loss at equal scores, given how many tokens a vocabulary has.
    form: the same as a formula.
    """

    name: str
    title: str
    objective: Objective
    start: Callable[[int], float]
    form: str


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One model and one medium that it reads.

    name: of the family, or of the encoder put before a language model.
    modality: of the medium.
    made: makes and loads it, in a folder that all cells share.
    """

    name: str
    modality: str
    made: Callable[[Path], Model]

    @property
    def key(self) -> str:
        return f"{self.name} {self.modality}"


def _soft(x: float) -> float:  # softplus
    return math.log1p(math.exp(x))


# rates 2 0 1 3 3 1 on cut points -2 0 2 and a latent number of 0: P(0) = P(3) = s(-2), P(1) = P(2) = 1/2 - s(-2)
_OUTER = 1 / (1 + math.exp(2))
_RATES = -(3 * math.log(_OUTER) + 3 * math.log(0.5 - _OUTER)) / 6
# three pairs in order by `reward`, one in order and one tied by `warmth`: theta is exp(1/2)
_TIES = (4 * _soft(0.5) + 2 * _soft(0.5) - math.log(math.e - 1)) / 5

#: Objectives of the core that have no column, and what tries them.
ELSEWHERE = {
    "reward_weighted": "tests/core/objectives/test_reward_weighted.py",
    "draft": "benchmarks/generator_matrix.py",
    "refl": "benchmarks/generator_matrix.py",
}

COLUMNS = (
    Column(name="sft", title="imitation", objective=objectives.SFT(), start=math.log, form="log V"),
    Column(name="dpo", title="preference", objective=objectives.DPO(), start=lambda _: math.log(2), form="log 2"),
    Column(name="ipo", title="preference", objective=objectives.IPO(), start=lambda _: 25.0, form="1 / (4 beta^2)"),
    Column(name="kto", title="labels", objective=objectives.KTO(), start=lambda _: 0.5, form="1/2"),
    Column(
        name="simpo",
        title="preference",
        objective=objectives.SimPO(),
        start=lambda _: _soft(1.4),
        form="log(1 + e^gamma)",
    ),
    Column(
        name="orpo",
        title="preference",
        objective=objectives.ORPO(),
        start=lambda tokens: math.log(tokens) + 0.1 * math.log(2),
        form="log V + beta log 2",
    ),
    Column(
        name="reward",
        title="reward by dimension",
        objective=objectives.BradleyTerry(dimensions=("reward", "clarity", "warmth")),
        start=lambda _: math.log(2),
        form="log 2",
    ),
    Column(
        name="thurstone",
        title="uncertainty",
        objective=objectives.Thurstone(dimensions=("reward", "clarity")),
        start=lambda _: math.log(2),
        form="log 2",
    ),
    Column(
        name="rao_kupper",
        title="ties",
        objective=objectives.RaoKupper(dimensions=("reward", "warmth")),
        start=lambda _: _TIES,
        form="log(1 + e^tie), and of a tie 2 log(1 + e^tie) - log(e^(2 tie) - 1)",
    ),
    Column(
        name="regression",
        title="scores",
        objective=objectives.Regression(dimensions=("truth",)),
        start=lambda _: (4 + 0 + 1 + 9 + 9 + 1) / 6,
        form="the mean of squared scores",
    ),
    Column(
        name="ordinal",
        title="rates",
        objective=objectives.Ordinal(dimensions=("truth",), learned=True),
        start=lambda _: _RATES,
        form="-log P(rate), P of the cut points alone",
    ),
    Column(
        name="moderation",
        title="moderation",
        objective=objectives.Moderation(dimensions=("unsafe", "rude")),
        start=lambda _: math.log(2),
        form="log 2",
    ),
    Column(name="cost", title="cost", objective=objectives.Cost(), start=lambda _: 3 * math.log(2), form="3 log 2"),
)


def _native(family: str, modality: str) -> Row:
    return Row(name=family, modality=modality, made=lambda folder: loaded(folder, family, adapter=ADAPTER))


def _composed(
    tower: str, modality: str, kind: str, make: Callable[[Path, str], Path], **media: Mapping[str, object]
) -> Row:
    """A tower and an MLP before a Llama.

    kind: registered name of the encoder.
    make: writes the tower into a folder.
    media: how its media are decoded.
    """

    def made(folder: Path) -> Model:
        words, place = folder / "llama", folder / tower
        if not words.is_dir():
            tiny_model(words, scale=4.0)
        if not place.is_dir():
            make(place, tower)
        return modalign.load(
            words, encoders={modality: {"path": str(place), "type": kind}}, media=media, adapter=ADAPTER
        )

    return Row(name=f"{tower} + llama", modality=modality, made=made)


ROWS = (
    *(_native(family, modality) for family, modality in CELLS),
    *(_composed(tower, "image", "vision", tiny_vision) for tower in ("clip", "siglip", "dinov2")),
    *(_composed(tower, "audio", "audio", tiny_audio) for tower in ("whisper", "clap", "ast")),
    _composed("frames-over-clip", "video", "frames", tiny_video),
    _composed("videomae", "video", "video", tiny_video, video={"frames": FRAMES}),
)

#: families that are tried with a few objectives only, in the tests
FURTHER = tuple(_native(family, modality) for family, modalities in READS.items() for modality in modalities)


def tried(row: Row, column: Column, models: Path) -> str:
    """What a cell says: `YES`, or why not.

    models: a folder that keeps the models of all cells.
    """

    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            Cell(row.made(models), column.objective, row.modality, column.start, Path(folder)).check()
        return YES

    return said(run)


def page(cells: Mapping[tuple[str, str], str], rows: Sequence[Row], columns: Sequence[Column], day: date) -> str:
    """The table and what it means, in Markdown.

    cells: what each says, by the row's key and the column's name.
    day: when it was measured.
    """
    head = ["model", "medium", *(f"`{one.name}`" for one in columns)]
    body = [[row.name, row.modality, *(cells[row.key, one.name] for one in columns)] for row in rows]
    laws = [[f"`{one.name}`", one.title, f"`{one.form}`"] for one in columns]
    return _PAGE.format(
        day=day.isoformat(),
        versions=versions("transformers", "peft"),
        good=sum(one == YES for one in cells.values()),
        all=len(cells),
        cells=table(head, body),
        laws=table(["objective", "for", "loss at equal scores"], laws),
    )


def main() -> None:
    """Try the cells, say or write what came of them."""
    with tempfile.TemporaryDirectory() as models:
        command(__doc__, ROWS, COLUMNS, lambda row, column: tried(row, column, Path(models)), page)


if __name__ == "__main__":
    main()
