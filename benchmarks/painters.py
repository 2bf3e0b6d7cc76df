"""Whether preferences help a generator, where the truth is known: every modality and seed of `modalign quickstart`.

    python benchmarks/painters.py --folder runs/painters

Each run is `modalign quickstart --modality M --seed S`, in a folder of its own with results.json and report.html; those
that are there already are kept. Prints the table of docs/generators-measured.md. The exit status is 1 where a run does
not hold: the start between 40 and 70 %, 15 points gained by DPO on pairs that share a defect and by DPO on the model's
own pairs, and the control below the start.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign.cli.quickstart import quickstart

STAGES = ("before", "dpo", "control", "own")
GAIN = 0.15


def main() -> None:
    """Run what is missing, and say what came of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/painters"), help="where the runs go")
    parser.add_argument("--modalities", default="image,audio,video", help="with commas between")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    args = parser.parse_args()
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for modality in args.modalities.split(","):
        for seed in (int(one) for one in args.seeds.split(",")):
            run = args.folder / f"{modality}-{seed}"
            if not (run / "results.json").is_file():
                quickstart(output_dir=run, modality=modality, seed=seed, quiet=True)
            found[modality, seed] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    lines = [_line(*key, one) for key, one in found.items()]
    print("\n".join(_row(cells) for cells in (_HEAD, ["---"] * len(_HEAD), *lines)))
    wrong = [f"{modality}, seed {seed}" for (modality, seed), one in found.items() if not _holds(one)]
    sys.exit(f"does not hold: {'; '.join(wrong)}" if wrong else 0)


_HEAD = ["", "seed", "before", "DPO", "imitation of the same chosen", "DPO on its own pairs", "seconds"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(modality: str, seed: int, results: Mapping[str, Any]) -> list[str]:
    said = [results["stages"][name]["accuracy"] for name in STAGES]
    rates = [f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]".replace("0.", ".") for one in said]
    return [modality, str(seed), *rates, f"{results['seconds']:.0f}"]


def _holds(results: Mapping[str, Any]) -> bool:
    before, dpo, control, own = (results["stages"][name]["accuracy"]["value"] for name in STAGES)
    return 0.4 <= before <= 0.7 and dpo >= before + GAIN and own >= before + GAIN and control < before


if __name__ == "__main__":
    main()
