"""README.md, followed from top to bottom: the example, rows, configs, commands and Python."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modalign.cli.app import app
from modalign.data import read
from modalign.training.storage.metricslog import read_metrics

HOME = Path(__file__).parents[1]
PAGE = (HOME / "README.md").read_text()
BLOCK = r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```'


def run(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "modalign":
        assert app(words[1:], exit_on_error=False, print_error=False, result_action="return_value") in (0, None)
    elif words[0] == "python":
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert words[0] == "pip", line


@pytest.mark.timeout(300)
def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(HOME / "examples")
    found = re.findall(BLOCK, PAGE, re.M | re.S)
    assert len(found) >= 7
    for language, title, text in found:
        if title:
            (tmp_path / title).write_text(text)
        for line in text.splitlines() if language == "bash" else ():
            run(line)
        if language == "python":
            exec(compile(text, "README.md", "exec"), {"__name__": "page"})
    said = capsys.readouterr().out
    assert "every row can be used" in said
    assert "encoders.action" in said
    for name in ("continuous", "discrete"):
        found = losses(name)
        assert sum(found[-4:]) < 0.8 * sum(found[:4])
    assert losses("dpo")[0] == math.log(2)
    answers = list(read("answers.jsonl"))
    assert len(answers) == 2
    assert "action" in {part.modality for one in answers for part in one.responses[0].parts()}


def losses(name: str) -> list[float]:
    return [one["loss"] for one in read_metrics(Path(f"runs/{name}/metrics.jsonl")) if "loss" in one]


def test_the_rows_that_are_shown_are_rows(tmp_path: Path):
    (shown,) = [text for _, title, text in re.findall(BLOCK, PAGE, re.M | re.S) if title == "shown.jsonl"]
    (tmp_path / "shown.jsonl").write_text(shown)
    from modalign_video.testing import numbered_clip

    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "0.mp4").write_bytes(numbered_clip(8))
    (one,) = read(str(tmp_path / "shown.jsonl"))
    assert [part.modality for part in one.prompt[0].parts] == ["video", "text"]
