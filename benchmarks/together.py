"""Whether one preference over words and media helps all of them, where the truth is known: the oracle world together.

    python benchmarks/together.py --folder runs/together
    python benchmarks/together.py --folder runs/together --seeds 0

The recipe is `modalign quickstart`'s: the model that ships with the plugins learns from examples with mistakes (SFT),
then from pairs that share a defect (DPO). Beside it two controls from the same start on the same pairs: imitating the
chosen responses, and DPO that scores words alone (media are context). The oracle says of each response to new requests
which parts there are, what each shows, and whether they agree. Runs that are there already are kept.

Seeds are pooled, and stages compared response by response. The exit status is 1 where one of these does not hold beyond
the 95 % interval: DPO raises everything above the start; imitation raises nothing; every medium follows more often
after DPO than after DPO on words alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from modalign.evaluation.intervals import paired, wilson
from modalign.objectives import DPO, SFT
from modalign.world.ensemble import EnsembleConfig, Rehearsal, ensemble_settings, taught
from modalign.world.harmony import outcomes
from modalign_text.config import COMPOSITION

STAGES: Final = ("before", "dpo", "control", "words")
MEDIA: Final = ("image", "audio", "video")
ASKED: Final = ("whole", "selection", "agreement", "text", *MEDIA)
SAMPLES: Final = 288

#: By stage and what was asked: of each response whether it does it; None where it was not asked for.
Outcomes = Mapping[str, Mapping[str, Sequence[bool | None]]]


def main() -> None:
    """Run what is missing, and say what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/together"), help="where the runs go")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(one) for one in args.seeds.split(",")]
    found = {str(one): run(args.folder / f"seed-{one}", ensemble_settings(seed=one, samples=SAMPLES)) for one in seeds}
    every = pooled(list(found.values()))
    for name, said in [*found.items(), ("all", every)]:
        rates = [[stage, *(_rate(said[stage][one]) for one in ASKED)] for stage in STAGES]
        print(table([f"seed {name}", *ASKED], rates))
    pairs = [("dpo", "before"), ("control", "before"), ("words", "before"), ("dpo", "words")]
    gains = [[f"{one} - {other}", *(_gain(every, one, other, name) for name in ASKED)] for one, other in pairs]
    print(table(["difference", *ASKED], gains))
    wrong = broken(every)
    sys.exit(f"does not hold: {'; '.join(wrong)}" if wrong else 0)


def run(folder: Path, config: EnsembleConfig) -> Outcomes:
    """What came of every stage of one seed; kept in its folder."""
    kept = folder / "results.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    began = time.perf_counter()
    depictions = taught(folder / "start")
    stages = Rehearsal(folder, config, depictions, say=print, quiet=True)
    before = stages.sft(folder / "start")
    start = before.folder / "final"
    done = [
        before,
        stages.align("dpo", start, DPO(beta=config.beta)),
        stages.align("control", start, SFT()),
        stages.align("words", words_alone(start, folder / "start-words"), DPO(beta=config.beta)),
    ]
    found: dict[str, Any] = {stage.name: outcomes(stage.seen) for stage in done}
    kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"seed {config.seed}: {time.perf_counter() - began:.0f} s, {time.process_time():.0f} s of CPU", flush=True)
    return found


def words_alone(start: Path, folder: Path) -> Path:
    """A copy of a saved model whose media are context: they weigh nothing in the likelihood of a response."""
    shutil.copytree(start, folder)
    said = json.loads((folder / COMPOSITION).read_text(encoding="utf-8"))
    for decoder in said["decoders"].values():
        decoder["weight"] = 0.0
    (folder / COMPOSITION).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return folder


def pooled(found: Sequence[Outcomes]) -> Outcomes:
    """The responses of all seeds together."""
    return {stage: {name: [value for one in found for value in one[stage][name]] for name in ASKED} for stage in STAGES}


def broken(found: Outcomes) -> list[str]:
    """What does not hold of the claims above."""
    raised = [f"DPO raises {name}" for name in ASKED if gain(found, "dpo", "before", name)[1] <= 0]
    imitated = [f"imitation raises no {name}" for name in ASKED if gain(found, "control", "before", name)[1] > 0]
    scored = [f"DPO on words alone raises {name} less" for name in MEDIA if gain(found, "dpo", "words", name)[1] <= 0]
    return [*raised, *imitated, *scored]


def gain(found: Outcomes, one: str, other: str, name: str) -> tuple[float, float, float]:
    """How much more often one stage does what was asked than another, with the 95 % interval."""
    both = [
        (before, after)
        for before, after in zip(found[other][name], found[one][name], strict=True)
        if before is not None and after is not None
    ]
    return paired([before for before, _ in both], [after for _, after in both])


def _rate(found: Sequence[bool | None]) -> str:
    asked = [one for one in found if one is not None]
    value = sum(asked) / len(asked)
    low, high = wilson(value, len(asked))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _gain(found: Outcomes, one: str, other: str, name: str) -> str:
    value, low, high = gain(found, one, other, name)
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), ""])


if __name__ == "__main__":
    main()
