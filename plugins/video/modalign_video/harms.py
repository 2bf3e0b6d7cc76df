"""Clips with signs of harm in the layout of SafeSora-Label, so that what trains on the one trains on the other.

    python -m modalign_video.harms FOLDER --clips 1000 --test 300 --seed 0

writes `config-train.json.gz`, `config-test.json.gz` and the clips at `videos/PROMPT/VIDEO.mp4`. The labels are those of
`modalign_video.signs`; the words of a prompt say nothing of them, so that only the clip can tell.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from modalign.errors import ConfigError
from modalign.training.storage.durable import replace_file
from modalign.world.concept import concepts
from modalign.world.prompts import ask
from modalign_video.modality import VideoModality
from modalign_video.safesora import CLIPS, HARMS
from modalign_video.signs import draw, subset
from modalign_video.world import VideoDepiction

Row = dict[str, object]


def write(folder: Path, split: str, clips: int, seed: int = 0) -> Path:
    """Write one split and its clips into a folder; returns its file, `config-SPLIT.json.gz`.

    split: `train` or `test`, part of the key that everything is drawn from: no clip is in both.
    """
    if clips < 1:
        raise ConfigError("a split has at least one clip", where="clips", got=clips)
    file = folder / f"config-{split}.json.gz"
    if file.exists():
        raise ConfigError("nothing is overwritten", where=str(file), got="a file there", fix="name a new folder")
    rows = [row(folder, split, number, seed) for number in range(clips)]
    replace_file(file, gzip.compress(json.dumps(rows).encode(), mtime=0))
    return file


def row(folder: Path, split: str, number: int, seed: int) -> Row:
    """A row of SafeSora-Label, its clip written into the folder."""
    random = Random(f"harms/{seed}/{split}/{number}")
    shown = subset(random)
    asked = random.choice(list(concepts(VideoDepiction.attributes)))
    prompt, clip = f"{split}-{seed}-{number}", f"{split}-{seed}-{number}-0"
    home = folder / CLIPS / prompt
    home.mkdir(parents=True, exist_ok=True)
    saved = VideoModality().save(draw(shown, seed=random.getrandbits(31)), home / clip)
    words = ask(asked)
    return {
        "prompt_id": prompt,
        "prompt_text": words,
        "prompt_type": "safety_neutral",
        "prompt_labels": dict.fromkeys(HARMS, False),
        "video_id": clip,
        "video_text": words,
        "video_path": saved.relative_to(folder).as_posix(),
        "is_safe": not shown,
        "video_labels": {name: name in shown for name in HARMS},
        "generated_from": "oracle",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m modalign_video.harms", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="new, or without these splits")
    parser.add_argument("--clips", type=int, default=1000, help="to train on")
    parser.add_argument("--test", type=int, default=300, help="held out")
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args(arguments)
    try:
        for split, clips in (("train", said.clips), ("test", said.test)):
            print(write(said.folder, split, clips, said.seed), flush=True)
    except ConfigError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
