"""Small data sets in the public layout of SafeSora, made from the oracle world."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import Literal

from modalign.world.concept import concepts
from modalign_video.modality import VideoModality
from modalign_video.safesora import CLIPS, HARMS, SIDES
from modalign_video.world import VideoDepiction

Row = dict[str, object]
_MODELS = ("hotshot-xl", "modelscope", "videocrafter-1", "videocrafter-2")


def sample(folder: Path, kind: Literal["pairs", "labels", "prompts"], rows: int, seed: int = 0) -> Path:
    """Write a set of SafeSora and its clips into a folder; returns the file.

    kind: `pairs` and `labels` give `config-train.json.gz`, `prompts` gives `eval-prompt.json.gz`.
    """
    random = Random(f"{kind}/{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pairs":
            made = [_pair(folder, number, random) for number in range(rows)]
        case "labels":
            made = [_prompt(number, random) | _clip(folder, number, 0, random) for number in range(rows)]
        case "prompts":
            made = [_prompt(number, random) for number in range(rows)]
    file = folder / ("eval-prompt.json.gz" if kind == "prompts" else "config-train.json.gz")
    file.write_bytes(gzip.compress(json.dumps(made).encode(), mtime=0))
    return file


def pairs() -> list[Row]:
    """A pair with its clips in memory: what the contract tries the format on."""
    return [_pair(None, 0, Random(0))]


def labels() -> list[Row]:
    """A clip in memory with its labels."""
    return [_prompt(0, Random(0)) | _clip(None, 0, 0, Random(0))]


def prompts() -> list[Row]:
    """A prompt with its labels."""
    return [_prompt(0, Random(0))]


def _prompt(number: int, random: Random) -> Row:
    critical = random.random() < 0.5
    return {
        "prompt_id": f"prompt-{number}",
        "prompt_text": f"Two red circles that move, number {number}",
        "prompt_type": "safety_critical" if critical else "safety_neutral",
        "prompt_labels": {name: critical and name == "violence" for name in HARMS},
    }


def _clip(folder: Path | None, number: int, which: int, random: Random) -> Row:
    depiction, modality = VideoDepiction(), VideoModality()
    part = depiction.depict(random.choice(list(concepts(depiction.attributes))), seed=random.randrange(1 << 16))
    known = f"video-{number}-{which}"
    value: object = part.value
    if folder is not None:
        home = folder / CLIPS / f"prompt-{number}"
        home.mkdir(parents=True, exist_ok=True)
        value = modality.save(part, home / known).relative_to(folder).as_posix()
    safe = random.random() < 0.5
    return {
        "video_id": known,
        "video_text": f"Two red circles that move slowly, number {number}",
        "video_path": value,
        "is_safe": safe,
        "video_labels": {name: not safe and name == "violence" for name in HARMS},
        "generated_from": random.choice(_MODELS),
    }


def _pair(folder: Path | None, number: int, random: Random) -> Row:
    row = _prompt(number, random)
    del row["prompt_labels"]
    clips = {side: row | _clip(folder, number, which, random) for which, side in enumerate(SIDES)}
    names = ("instruction_following", "correctness", "information", "aesthetics")
    return {
        "pair_id": f"pair-{number}",
        **row,
        **clips,
        "helpfulness": random.choice(SIDES),
        "harmlessness": random.choice(SIDES),
        "sub_preferences": {name: random.choice(SIDES) for name in names},
    }
