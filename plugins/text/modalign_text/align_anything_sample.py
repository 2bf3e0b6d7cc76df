"""Small data sets in the public layout of align-anything's subsets, made from the oracle world."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

from modalign.content import Part
from modalign.registry import registry
from modalign.world.concept import Concept, concepts
from modalign_text.align_anything_columns import SUBSETS, Subset

Row = dict[str, object]

#: Subsets of language feedback, by the modality in their prompts.
FEEDBACK: Final[Mapping[str, str]] = MappingProxyType({"ti2t_llf": "image", "ta2t_llf": "audio"})


def sample(folder: Path, subset: str, rows: int, seed: int = 0) -> Path:
    """Write `train.jsonl` of a subset and its media into a folder; returns the file.

    subset: `t2t`, `ti2t`, `ta2t`, `tv2t`, `t2i`, `t2a`, `t2v`, `ti2ti`; or `ti2t_llf` or `ta2t_llf`: pairs of language
        feedback.

    Every third row has no overall preference, as a part of the public rows has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(f"{subset}/{seed}")
    made = (
        [_refined(folder, FEEDBACK[subset], number, random) for number in range(rows)]
        if subset in FEEDBACK
        else [_row(folder, SUBSETS[subset], number, random) for number in range(rows)]
    )
    file = folder / "train.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in made))
    return file


def t2t() -> list[Row]:
    """A row of text-to-text: what the contract tries the format on."""
    return [_row(Path(), SUBSETS["t2t"], 0, Random(0))]


def refined() -> list[Row]:
    """A row of language feedback without media."""
    return [{"prompt": "What is 2 + 2?", "response": "5", "refinement": "4", "critique": "One too many."}]


def _row(folder: Path, subset: Subset, number: int, random: Random) -> Row:
    better = (1, 2, 0)[number % 3]
    row: Row = {"question" if subset.asks == "image" else "prompt": "What do you see or hear?"}
    match subset.asks:
        case "image":
            row["image"] = _file(folder, "image", f"question-{number}", random)
        case "audio":
            row["audio_path"] = _file(folder, "audio", f"question-{number}", random)
        case "video":
            row["prompt"] = "<video>\nWhat happens?"
            row["video_path"] = f"./{_file(folder, 'video', f'question-{number}', random)}"
        case _:
            pass
    for which in (1, 2):
        name = f"answer-{number}-{which}"
        if subset.words:
            row[f"response_{which}"] = f"Answer {number}-{which}: {random.choice(('red', 'blue'))}."
        match subset.name:
            case "ti2ti":
                row[f"output_image_url_{which}"] = _file(folder, "image", name, random)
            case "t2i":
                row[f"image_{which}"] = _file(folder, "image", name, random)
                row[f"image_{which}_model"] = f"model-{which}"
            case "t2a":
                row[f"response_{which}"] = _file(folder, "audio", name, random)
            case "t2v":
                row[f"video_{which}_path"] = _file(folder, "video", name, random)
            case _:
                pass
        if subset.name != "t2i":
            row[f"model_{which}" if subset.asks == "video" else f"res_{which}_from"] = f"model-{which}"
        for letters, dimension in subset.dimensions.items():
            row[f"{dimension}_rate_{which}"] = random.randint(0, 3)
            row[f"{letters}_rationale_{which}"] = f"The {dimension} of {which}."
    for letters in subset.dimensions:
        row[f"{letters}_{subset.label}"] = random.choice((0, 1, 2))
    return row | {f"overall_{subset.label}": better}


def _refined(folder: Path, modality: str, number: int, random: Random) -> Row:
    file = folder / _file(folder, modality, f"question-{number}", random)
    held = base64.b64encode(file.read_bytes()).decode()
    file.unlink()
    said = {"response": f"Grey {number}.", "refinement": f"Red {number}."}
    return {"prompt": "What do you see or hear?", **said, modality: held}


def _file(folder: Path, modality: str, name: str, random: Random) -> str:
    depiction = registry.depiction(modality)
    concept: Concept = random.choice(list(concepts(depiction.attributes)))
    part: Part = depiction.depict(concept, seed=random.randrange(1 << 16))
    home = folder / f"{modality}s"
    home.mkdir(exist_ok=True)
    return registry.modality(modality).save(part, home / name).relative_to(folder).as_posix()
