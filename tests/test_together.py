"""benchmarks/together.py: its stages run, what it says is kept, and a run that does not hold ends with 1."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import together


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_scaled_down_run_measures_every_stage_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PAINTERS", dict.fromkeys(together.PAINTERS, 1))
    monkeypatch.setattr(together, "_PROMPTS", 4)
    found = together.run(tmp_path / "run", 0, 2, 1)
    for stage in together.STAGES:
        assert set(found[stage]) == {"whole", "selection", "agreement", "text", "image", "audio", "video"}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"mine": True}))
    assert together.run(tmp_path / "run", 0, 2, 1) == {"mine": True}


@pytest.mark.parametrize(("dpo", "control", "holds"), [(0.5, 0.1, True), (0.3, 0.1, False), (0.5, 0.4, False)])
def test_the_command_ends_with_1_where_the_contrast_does_not_help(
    dpo: float, control: float, holds: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("whole", "selection", "agreement", "text", "image", "audio", "video")
    said = {"before": 0.3, "dpo": dpo, "control": control}
    found = {stage: {name: [value, value - 0.05, value + 0.05] for name in names} for stage, value in said.items()}
    monkeypatch.setattr(together, "run", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["together.py"])
    with pytest.raises(SystemExit) as ended:
        together.main()
    assert (ended.value.code == 0) is holds
    assert capsys.readouterr().out.count("| 0 |") == 3
