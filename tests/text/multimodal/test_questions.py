"""A tiny model learns to see, hear and watch, and is aligned: the example whole, as docs/media-measured.md shows it."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "questions.py"


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_dpo_and_a_reward_model_help_and_imitation_of_the_same_answers_does_not(
    modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, "--modality", modality, "--output_dir", str(tmp_path / "run")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = re.findall(r"^(before|dpo|control|best of 4) +accuracy \S+ \[(\S+), (\S+)\]", capsys.readouterr().out, re.M)
    interval = {name: (float(low), float(high)) for name, low, high in said}
    assert interval["dpo"][0] > interval["before"][1]
    assert interval["best of 4"][0] > interval["before"][1]
    assert interval["control"][1] < interval["before"][0]
