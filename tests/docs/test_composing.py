"""docs/composing.md, followed from top to bottom: code, config, rows, commands, and the errors it promises."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalign.training.storage.metricslog import read_metrics
from tiny_hub import BLOCK, QUIET, check_refused, run

PAGE = (Path(__file__).parents[2] / "docs/composing.md").read_text()
USED, WRONG = PAGE.split("## Mistakes")
COMMANDS = re.findall(
    r'^```bash\n(modalign [^\n]*)\n```\n\n(?:```json title="[^"]+"\n.*?^```\n\n)?```text\n(.*?)^```', WRONG, re.M | re.S
)

pytestmark = [*QUIET, pytest.mark.usefixtures("walked")]


@pytest.fixture(autouse=True)
def _own_codec(there: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the page writes is imported from where it is written."""
    monkeypatch.syspath_prepend(there)
    yield
    sys.modules.pop("brightness", None)


@pytest.mark.timeout(600)
def test_the_page_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    page: dict[str, object] = {"__name__": "page"}
    for language, title, text in re.findall(BLOCK, USED, re.M | re.S):
        for line in text.splitlines() if language == "bash" else ():
            assert run(line) in (0, None), line
        if language == "python" and title:
            Path(title).write_text(text)
        elif language == "python":
            exec(compile(text, "docs/composing.md", "exec"), page)
    said = capsys.readouterr().out
    assert "64 codes of 16" in said
    assert Path("codes-and-words/decoders/image/brightness.json").is_file()
    assert "every row can be used" in said
    assert "conditioners.image" in said
    assert Path("model.svg").read_text().startswith("<svg")
    losses = [row["loss"] for row in read_metrics(Path("runs/whole/metrics.jsonl")) if "loss" in row]
    assert losses[0] == math.log(2)
    final = {one.name for one in Path("runs/whole/final").iterdir()}
    named = set(re.findall(r"`(\w+\.(?:safetensors|json))`", USED))
    assert named <= final


@pytest.mark.parametrize(("line", "said"), COMMANDS, ids=[said.split(":")[0] for _, said in COMMANDS])
def test_a_mistake_is_said_as_the_page_says(line: str, said: str, there: Path) -> None:
    check_refused(line, said, there)


def test_there_are_mistakes() -> None:
    assert len(COMMANDS) == WRONG.count("```text") >= 3
