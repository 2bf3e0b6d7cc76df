"""docs/native.md, followed from top to bottom: code, config, rows, commands, and the errors it promises."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from modalign.training.storage.metricslog import read_metrics
from modalign_text.multimodal.native.testing import NATIVE
from tiny_hub import BLOCK, QUIET, check_refused, run

PAGE = (Path(__file__).parents[2] / "docs/native.md").read_text()
USED, WRONG = PAGE.split("## Mistakes")
COMMANDS = re.findall(r"^```bash\n(modalign [^\n]*)\n```\n\n```text\n(.*?)^```", WRONG, re.M | re.S)

pytestmark = [*QUIET, pytest.mark.usefixtures("walked")]


@pytest.mark.timeout(600)
def test_the_page_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    for language, _, text in re.findall(BLOCK, USED, re.M | re.S):
        for line in text.splitlines() if language == "bash" else ():
            assert run(line) in (0, None), line
        if language == "python":
            exec(compile(text, "docs/native.md", "exec"), {"__name__": "page"})
    said = capsys.readouterr().out
    assert "every row can be used" in said
    assert "16 codes of 32 -> image" in said
    assert "['image', 'text']" in said
    for name in ("janus", "emu3"):
        losses = [row["loss"] for row in read_metrics(Path(f"runs/{name}/metrics.jsonl")) if "loss" in row]
        assert losses[0] == pytest.approx(math.log(2), rel=1e-9)
    options = json.loads(Path("runs/emu3/final/modalign_pictures.json").read_text())
    assert options == {"image_weight": 0.05, "image_ratio": "1:1", "image_area": 24 * 24}


@pytest.mark.parametrize(("line", "said"), COMMANDS, ids=[said.split(";")[0] for _, said in COMMANDS])
def test_a_mistake_is_said_as_the_page_says(line: str, said: str, there: Path) -> None:
    check_refused(line, said, there)


def test_there_are_mistakes() -> None:
    assert len(COMMANDS) == WRONG.count("```text") >= 3


def test_every_family_is_on_the_page() -> None:
    table = USED.split("## 1.")[0].lower()
    assert all(f"| {family}" in table for family in NATIVE)
