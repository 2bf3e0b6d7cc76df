"""docs/a-modality.md, followed from top to bottom: its files written, installed, checked, trained and asked."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from modalign.training.storage.metricslog import read_metrics
from stranger import environment, install, run
from tiny_hub import BLOCK

PAGE = (Path(__file__).parents[2] / "docs/a-modality.md").read_text()
BLOCKS = re.findall(BLOCK, PAGE, re.M | re.S)
FILES = {title: text for _, title, text in BLOCKS if title}
COMMANDS = [line for language, _, text in BLOCKS if language == "bash" for line in text.splitlines()]


def test_it_takes_fewer_lines_than_the_page_says() -> None:
    (most,) = map(int, re.findall(r"fewer than (\d+) lines", PAGE))
    (files,) = re.findall(r"takes (\w+) files", PAGE)
    assert (most, files, len(FILES)) == (150, "seven", 7)
    lines = [line for text in FILES.values() for line in text.splitlines() if line.strip()]
    assert len(lines) < most, len(lines)


def test_every_block_of_code_is_a_file_or_a_command() -> None:
    assert not [text for language, title, text in BLOCKS if not title and language != "bash"]


@pytest.mark.timeout(300)
def test_the_page_can_be_followed(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    python = environment(tmp_path / "env")
    said: dict[str, str] = {}
    for line in COMMANDS:
        match shlex.split(line):
            case ["pip", "install", "-e", place]:
                install(python, tmp_path / place)
            case ["python", *words]:
                said[line] = run(python, *words, cwd=tmp_path)
            case ["pytest", *words]:
                said[line] = run(python, "-m", "pytest", "-v", "-n0", "-p", "no:cacheprovider", *words, cwd=tmp_path)
            case ["modalign", *words]:
                said[line] = run(python, "-m", "modalign", *words, cwd=tmp_path)
    assert "modalign-palette" in said["modalign plugins"]
    laws = said["pytest --pyargs modalign.testing --plugin palette"]
    assert "failed" not in laws
    for law in (
        "modality palette: a bad block",
        "encoder colours: saving and loading",
        "loader palettes: new adapters",
    ):
        assert law in laws
    (kept,) = re.findall(r"(\d+) passed", laws)
    assert int(kept) >= 34
    answers = dict(re.findall(r"^(sunset|the sea) (\{.*\})$", said["python align.py"], re.M))
    assert answers.keys() == {"sunset", "the sea"}
    assert warmth(answers["sunset"]) > 0 > warmth(answers["the sea"])
    losses = [row["loss"] for row in read_metrics(tmp_path / "dpo/metrics.jsonl") if "loss" in row]
    assert losses[-1] < losses[0]


def warmth(answer: str) -> float:
    """How much more red than blue there is."""
    block = json.loads(answer.replace("'", '"'))
    assert block["type"] == "palette"
    colours = [bytes.fromhex(one[1:]) for one in block["palette"].split()]
    assert len(colours) == 5
    return sum(one[0] - one[2] for one in colours) / 5
