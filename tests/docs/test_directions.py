"""docs/text-to-image.md, text-to-audio.md and text-to-video.md: each is followed from data to samples, and on."""

import math
import re
import shlex
from pathlib import Path

import pytest

from modalign.data import check, read
from modalign.training.storage.metricslog import read_metrics
from tiny_hub import BLOCK, QUIET, at_home, fill, run

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = {"text-to-image": ("<img", "*.png"), "text-to-audio": ("<audio", "*.wav"), "text-to-video": ("<video", "*.mp4")}

pytestmark = QUIET


def flag(line: str, name: str) -> str | None:
    """What a command says of a flag."""
    words = shlex.split(line)
    return words[words.index(name) + 1] if name in words else None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHOWN)
def test_the_page_of_a_direction_can_be_followed(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text()
    with pytest.MonkeyPatch.context() as patch:
        fill(tmp_path, page)
        with at_home(tmp_path, patch):
            follow(page, *SHOWN[name])


def follow(page: str, tag: str, media: str) -> None:
    """Run all of a page, and look at what its commands leave."""
    done: set[str] = set()
    spaces: list[dict[str, object]] = []
    for language, _, text in re.findall(BLOCK, page, re.M | re.S):
        for line in text.splitlines() if language == "bash" else ():
            assert run(line) in (0, None), line
            done.add(" ".join(line.split()[1:3]) if "train" in line else line.split()[1])
            left(line, tag, media)
        if language == "python":
            spaces.append({"__name__": "page"})
            exec(compile(text, "the page", "exec"), spaces[-1])
    assert done >= {"data", "train dpo", "train kto", "train reward", "report", "generate", "sample"}
    assert "pipe" in spaces[-1]


def left(line: str, tag: str, media: str) -> None:
    """Raise where a command has not left what the page promises."""
    kind = line.split()[1]
    if kind == "train" and (folder := flag(line, "--output_dir")):
        losses = [row["loss"] for row in read_metrics(Path(folder, "metrics.jsonl")) if "loss" in row]
        assert losses
        assert all(map(math.isfinite, losses))
        if " dpo " in line and "sft_weight" not in line and "--model runs/" not in line:
            assert losses[0] == math.log(2)
        if " kto " in line:
            assert losses[0] == 0.5
    if kind == "report":
        assert Path(line.split()[2], "report.html").read_text().count(tag) >= 4
    if kind == "generate":
        assert list(Path(flag(line, "--media_dir") or "").glob(media))
    if kind == "sample":
        made = check(read(flag(line, "--output") or ""))
        assert (made.good, made.kinds, made.bad_rows) == (2, {"pair": 2}, ())


@pytest.mark.parametrize("name", SHOWN)
def test_rows_of_the_page_can_be_used(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text()
    fill(tmp_path, "\n".join(line for line in page.splitlines() if not line.startswith("modalign")))
    rows = [title for _, title, _ in re.findall(BLOCK, page, re.M | re.S) if title.endswith(".jsonl")]
    assert len(rows) >= 2
    for title in rows:
        report = check(read(tmp_path / title))
        assert report.good >= 1
        assert not report.bad_rows
