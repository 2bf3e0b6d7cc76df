"""Rows of a robot arm, and tiny models to learn from them: `python examples/reach.py FOLDER`.

Each row shows a clip and asks for a movement of the oracle world; the chosen action makes it, the rejected goes another
way. Some rows name their actions as files, others write them out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import numpy as np
import torch

from modalign.registry import registry
from modalign.world import Concept, ask, concepts
from modalign_action.world import ActionDepiction
from modalign_text.testing import tiny_model
from modalign_video.testing import tiny_video

ROWS = 12


def main(folder: Path) -> None:
    """Write `pairs.jsonl` with its clips and actions, a language model and a video tower."""
    (folder / "clips").mkdir(parents=True)
    (folder / "actions-shown").mkdir()
    tiny_model(folder / "words", scale=4.0)
    tiny_video(folder / "tower", "frames-over-clip")
    every, random = list(concepts(ActionDepiction.attributes)), Random(0)
    with (folder / "pairs.jsonl").open("w") as file:
        for number in range(ROWS):
            wanted = every[number % len(every)]
            other = wanted.violate(random.choice(wanted.attributes), random)
            clip = registry.depiction("video").depict(Concept(motion=wanted.motion), seed=number)
            place = registry.modality("video").save(clip, folder / "clips" / f"{number}")
            row = {
                "prompt": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "video", "video": f"clips/{place.name}"},
                            {"type": "text", "text": ask(wanted)},
                        ],
                    }
                ],
                "chosen": said(folder, wanted, number, as_file=number % 2 == 0),
                "rejected": said(folder, other, number + ROWS, as_file=False),
            }
            file.write(json.dumps(row) + "\n")
    print(f"{ROWS} rows in {folder / 'pairs.jsonl'}")


def said(folder: Path, concept: Concept, number: int, *, as_file: bool) -> list[dict[str, object]]:
    """An answer of one action."""
    part = ActionDepiction().depict(concept, seed=number)
    assert isinstance(part.value, torch.Tensor)
    value: object = part.value.tolist()
    if as_file:
        np.save(folder / "actions-shown" / f"{number}.npy", part.value.numpy())
        value = f"actions-shown/{number}.npy"
    return [{"role": "assistant", "content": [{"type": "action", "action": value, "rate": part.facts["rate"]}]}]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
