"""The first screen of the README: what it promises in ten lines is run, with tiny models in place of the real ones."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from modalign.training.storage.metricslog import read_metrics
from tiny_hub import BLOCK, at_home, fill

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text()
SCREEN = "\n".join(PAGE.splitlines()[:45])
ROWS = re.findall(r'title="rows/pairs.jsonl"\n(.*?)^```', (ROOT / "docs/composing.md").read_text(), re.M | re.S)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
]


def test_the_first_screen_has_both_commands_the_ten_lines_and_the_picture() -> None:
    assert "modalign quickstart" in SCREEN
    assert 'pip install -e ".[all,dev]" && pytest' in SCREEN
    assert "docs/any-to-any.svg" in SCREEN
    (text,) = [text for language, _, text in re.findall(BLOCK, SCREEN, re.M | re.S) if language == "python"]
    calls = re.findall(r"ma\.(compose|read|Trainer|DPO)\(|\.(train|generate)\(", text)
    assert ["".join(one) for one in calls] == ["compose", "read", "Trainer", "DPO", "train", "generate"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 12


def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [text for language, _, text in re.findall(BLOCK, SCREEN, re.M | re.S) if language == "python"]
    (rows,) = ROWS
    fill(tmp_path, f'{code}\n```json title="pairs.jsonl"\n{rows}```\n')
    (tmp_path / "rows/pairs.jsonl").write_text(rows)  # beside its media
    code = code.replace("pairs.jsonl", "rows/pairs.jsonl")
    with at_home(tmp_path, monkeypatch):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
        losses = [row["loss"] for row in read_metrics(Path("runs/dpo/metrics.jsonl")) if "loss" in row]
        assert losses[0] == math.log(2)
        assert (Path("runs/dpo/final") / "modalign_composition.json").is_file()
    assert re.fullmatch(r"\[('\w+'(, )?)+\]", capsys.readouterr().out.splitlines()[-1])
