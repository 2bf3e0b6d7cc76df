"""`modalign report RUN` on the folder of a real, tiny run."""

from pathlib import Path

import pytest

from modalign.cli import main
from modalign.objectives.dpo import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer


def test_a_run_has_a_report_with_its_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    Trainer(model=toy_model(), objective=DPO(), data=toy_pairs(), output_dir=run, max_steps=2, quiet=True).train()
    with pytest.raises(SystemExit) as end:
        main(["report", str(run)])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    page = (run / "report.html").read_text()
    assert "rewards/margins" in page
    assert "2 steps" in page


def test_a_folder_without_metrics_is_refused_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path)])
    assert end.value.code == 2
    assert "give the output_dir of a training run" in capsys.readouterr().err
