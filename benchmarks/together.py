"""Whether one preference over words and media helps all of them, where the truth is known: the oracle world together.

    python benchmarks/together.py --folder runs/together              # seed 0
    python benchmarks/together.py --folder runs/together --seeds 0,1,2

Painters learn each modality alone; a tiny language model is put before them and learns, from examples of which 45 %
have a mistake, to answer requests for several modalities in an order (SFT). Then DPO on pairs that share a defect, and
the control: imitating the chosen responses of the same pairs. Prints what the oracle says of each: which parts there
are, what each shows, whether they agree. Runs that are there already are kept. The exit status is 1 where DPO does not
raise all at once above the start, or the control does not lower it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

import modalign
from modalign.model import Model
from modalign.objectives import DPO, SFT, Objective
from modalign.registry import registry
from modalign.training import Trainer
from modalign.world.harmony import Harmony, harmony, judge_together
from modalign_text.student import save_student

#: Steps in which a painter learns its modality from clean examples, measured to be enough.
PAINTERS: Final = {"image": 1400, "audio": 1100, "video": 500}
STAGES: Final = ("before", "dpo", "control")

_BATCH: Final = 16
_PROMPTS: Final = 192


def main() -> None:
    """Run what is missing, and say what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/together"), help="where the runs go")
    parser.add_argument("--seeds", default="0", help="with commas between")
    parser.add_argument("--sft_steps", type=int, default=1200)
    parser.add_argument("--dpo_steps", type=int, default=150)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    wrong: list[str] = []
    for seed in (int(one) for one in args.seeds.split(",")):
        found = run(args.folder / f"seed-{seed}", seed, args.sft_steps, args.dpo_steps)
        rows += [[str(seed), stage, *_cells(found[stage])] for stage in STAGES]
        whole = {stage: found[stage]["whole"][0] for stage in STAGES}
        if not whole["control"] < whole["before"] < whole["dpo"]:
            wrong.append(f"seed {seed}: {whole}")
    head = ["seed", "", "all at once", "selection", "agreement", *sorted(("text", *PAINTERS))]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)))
    sys.exit(f"does not hold: {'; '.join(wrong)}" if wrong else 0)


def run(folder: Path, seed: int, sft_steps: int, dpo_steps: int) -> dict[str, Any]:
    """What the oracle says after each stage of one seed; kept in its folder."""
    kept = folder / "results.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    began = time.perf_counter()
    decoders = {
        name: {
            "path": str(_painter(folder, name, steps, seed)),
            "weight": 0.05,
            "connector": {"heads": 4},
        }
        for name, steps in PAINTERS.items()
    }
    words = save_student(folder / "words", seed=seed, together=True, positions=256)
    model = modalign.compose(words, decoders=decoders)
    print(model.describe(), flush=True)
    _train(model, SFT(), "sft", folder / "before", steps=sft_steps, rates=(2e-3, 5e-4), seed=seed)
    found: dict[str, Any] = {"before": _said(_measured(model, seed))}
    for stage, objective in (("dpo", DPO(beta=0.1)), ("control", SFT())):
        aligned = modalign.load(folder / "before" / "final")
        _train(aligned, objective, "shared-defect", folder / stage, steps=dpo_steps, rates=(1e-4, 1e-4), seed=seed)
        found[stage] = _said(_measured(aligned, seed))
    found["seconds"] = time.perf_counter() - began
    kept.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _painter(folder: Path, name: str, steps: int, seed: int) -> Path:
    """A painter that knows its modality; one that is there already is taken."""
    final = folder / f"{name}-painter" / "final"
    if final.is_dir():
        return final
    student = registry.depiction(name).student(folder / f"{name}-student", seed=seed)
    assert student is not None
    model = modalign.load(student)
    Trainer(
        model=model,
        objective=SFT(),
        data=modalign.read("oracle", split=f"{name}/clean", limit=4096, revision=str(seed)),
        output_dir=folder / f"{name}-painter",
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        seed=seed,
        quiet=True,
    ).train()
    return final


def _train(
    model: Model,
    objective: Objective,
    kind: str,
    folder: Path,
    *,
    steps: int,
    rates: tuple[float, float],
    seed: int,
) -> None:
    """One run.

    rates: learning rates of the language model and the connectors, and of the painters.
    """
    Trainer(
        model=model,
        objective=objective,
        data=modalign.read("oracle", split=f"together/{kind}", limit=steps * _BATCH, revision=str(seed)),
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=_BATCH,
        learning_rate=rates[0],
        learning_rates={f"decoders.{name}": rates[1] for name in PAINTERS},
        lr_scheduler_type="cosine" if kind == "sft" else "linear",
        warmup_steps=10,
        seed=seed,
        quiet=True,
    ).train()


def _measured(model: Model, seed: int) -> Harmony:
    """What the oracle says of answers to requests that no training data has by this number."""
    rows = modalign.read("oracle", split="together/prompts", limit=_PROMPTS, revision=str(1000 + seed))
    answers = model.generate([row.prompt for row in rows], temperature=1.0, max_new_tokens=40, batch_size=96, seed=seed)
    seen = [judge_together(row.prompt, one, registry.depictions()) for row, one in zip(rows, answers, strict=True)]
    return harmony([one for one in seen if one is not None])


def _said(found: Harmony) -> dict[str, Any]:
    rates = {"whole": found.whole, "selection": found.selection, "agreement": found.agreement, **found.following}
    return {name: [rate.value, rate.low, rate.high] for name, rate in rates.items()}


def _cells(said: dict[str, Sequence[float]]) -> list[str]:
    names = ["whole", "selection", "agreement", *sorted(("text", *PAINTERS))]
    return [f"{said[name][0]:.3f} [{said[name][1]:.3f}, {said[name][2]:.3f}]" for name in names]


if __name__ == "__main__":
    main()
