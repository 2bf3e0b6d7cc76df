"""Training on actions: closed forms at the start, preferences and demonstrations that are learnt, and rewards."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import modalign
from cases import DOWN, MODELS, UP, action, answer, asked, pair, scored, words
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Part
from modalign.draws import DrawConfig
from modalign.model import Model
from modalign.objectives import DPO, KTO, SFT, BradleyTerry
from modalign.objectives.base import Objective
from modalign.training import Trainer
from modalign_action import fit, new_expert

BETA = {"discrete": 0.1, "continuous": 1.0}  #: a chunk of the second counts a tenth, by its weight
PAIRS = [pair(UP, DOWN, number) for number in range(4)]
JUDGED = [
    replace(
        Comparison.unpaired(one.prompt, replace(response, label=label)),
        id=f"{one.id}-{label}",
    )
    for one in PAIRS
    for response, label in zip(one.responses, (True, False), strict=True)
]


def trainer(
    model: Model,
    objective: Objective,
    rows: list[Comparison],
    folder: Path,
    *,
    steps: int = 12,
    rate: float = 5e-3,
    together: int = 4,
) -> Trainer:
    return Trainer(
        model=model,
        objective=objective,
        data=rows,
        eval_data=rows,
        output_dir=folder / "run",
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=together,
        draws=DrawConfig(count=4),
        quiet=True,
    )


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def preferred(model: Model) -> torch.Tensor:
    """How much likelier the chosen is than the rejected, of each pair."""
    found = torch.stack([scored(model, one, count=16).logps for one in PAIRS])
    return found[:, 0] - found[:, 1]


@pytest.mark.parametrize("adapter", [None, AdapterConfig(r=4)], ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", MODELS)
def test_dpo_starts_at_log_2_and_makes_the_preferred_action_likelier(
    kind: str, adapter: AdapterConfig | None, parts: Path, tmp_path: Path
):
    model = MODELS[kind](parts, adapter)
    before = preferred(model)
    run = trainer(model, DPO(beta=BETA[kind]), PAIRS, tmp_path)
    assert run.evaluate()["eval_loss"] == math.log(2)
    run.train()
    assert losses(tmp_path)[0] == math.log(2)
    assert run.evaluate()["eval_loss"] < 0.6
    assert (preferred(model) > before).all()


@pytest.mark.parametrize("kind", MODELS)
def test_kto_starts_at_a_half_and_learns(kind: str, parts: Path, tmp_path: Path):
    model = MODELS[kind](parts, AdapterConfig(r=4))
    before = preferred(model)
    run = trainer(model, KTO(beta=BETA[kind]), JUDGED, tmp_path, together=8)
    assert run.evaluate()["eval_loss"] == 0.5
    run.train()
    assert run.evaluate()["eval_loss"] < 0.47
    assert (preferred(model) > before).all()


MOVES = {UP: torch.tensor([[0.9, -0.5]] * 3), DOWN: torch.tensor([[-0.9, 0.5]] * 3)}


@pytest.mark.parametrize("kind", MODELS)
def test_two_movements_are_learnt_from_what_was_shown_and_made(kind: str, parts: Path, tmp_path: Path):
    source = torch.Generator().manual_seed(0)
    rows = [
        replace(
            Comparison.unpaired(
                asked(one),
                answer(words("So:"), Part(modality="action", value=move + 0.05 * torch.randn(3, 2, generator=source))),
            ),
            id=f"{one.key}-{number}",
        )
        for one, move in MOVES.items()
        for number in range(8)
    ]
    new_expert(fit(rows, tmp_path / "arm", bins=16), tmp_path / "arm", width=32, depth=2)
    how = {"type": "action-bins"} if kind == "discrete" else {"connector": {"queries": 4, "heads": 4}}
    model = modalign.compose(
        parts / "words",
        encoders={"video": {"path": str(parts / "tower"), "type": "frames"}},
        decoders={"action": {"path": str(tmp_path / "arm"), **how}},
    )
    trainer(model, SFT(), rows, tmp_path, steps=80, rate=1e-2, together=8).train()
    made = model.generate([asked(UP), asked(DOWN)], seed=1, max_new_tokens=12)
    for move, response in zip(MOVES.values(), made, strict=True):
        said, part = response.parts()
        assert said.value == "So:"
        assert isinstance(part.value, torch.Tensor)
        assert (part.value - move).abs().max() < 0.4, part.value


@pytest.mark.parametrize("kind", ["encoded", "as bins"])
def test_a_reward_model_reads_actions_of_responses_and_of_prompts(kind: str, parts: Path, tmp_path: Path):
    behind = {"action": {"path": str(parts / "bins"), "type": "action-bins"}} if kind == "as bins" else {}
    before = {"action": {"path": str(parts / "bins"), "options": {"width": 32}}} if kind == "encoded" else {}
    model = modalign.compose(parts / "words", encoders=before, decoders=behind, adapter=AdapterConfig(r=4))
    # the better one undoes what was done: neither prompt nor response alone says which that is
    rows = [
        replace(
            Comparison.pair(
                [replace(asked(UP)[0], parts=(action(done, number), words("Back!")))],
                answer(action(undone, number + 9)),
                answer(action(done, number + 5)),
            ),
            id=f"{done.key}-{number}",
        )
        for number in range(4)
        for done, undone in ((UP, DOWN), (DOWN, UP))
    ]
    run = trainer(model, BradleyTerry(), rows, tmp_path, steps=60, together=8)
    assert run.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=0.05)
    run.train()
    assert run.evaluate()["eval_loss"] < 0.3
