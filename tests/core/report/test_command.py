"""`modalign report RUN` on the folder of a real, tiny run."""

from pathlib import Path

import pytest
import torch

from modalign.cli import main
from modalign.objectives import DPO, BradleyTerry, Predictions
from modalign.report import of_run, render
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.training.storage.predictions import NAME, forget_after, keep, kept


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


def test_a_run_of_a_reward_model_has_what_its_last_evaluation_predicted(tmp_path: Path) -> None:
    run, data = tmp_path / "run", toy_pairs()

    def train(resume: str | None = None) -> None:
        Trainer(
            model=toy_model(),
            objective=BradleyTerry(),
            data=data,
            eval_data=data,
            output_dir=run,
            max_steps=4,
            eval_steps=2,
            save_steps=2,
            quiet=True,
            resume_from_checkpoint=resume,
        ).train()

    train()
    found = kept(run)
    assert found is not None
    assert found.step == 4
    assert len(found.by_name["reward"].said) == len(data)
    page = render(of_run(run))
    assert "Agreement with people" in page
    assert "reward: reliability" in page
    whole = (run / NAME).read_bytes()
    train(str(run / "checkpoints" / "checkpoint-2"))
    assert (run / NAME).read_bytes() == whole


def test_predictions_of_steps_that_a_run_does_again_are_forgotten(tmp_path: Path) -> None:
    said = {"reward": Predictions(kind="preference", predicted=torch.rand(3), said=torch.ones(3))}
    for step, stays in ((2, True), (3, False)):
        keep(tmp_path, said, step=step)
        forget_after(tmp_path, 2)
        assert (tmp_path / NAME).exists() is stays
    (tmp_path / NAME).write_bytes(b"broken")
    forget_after(tmp_path, 2)
    assert not (tmp_path / NAME).exists()


def test_a_folder_without_metrics_is_refused_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path)])
    assert end.value.code == 2
    assert "give the output_dir of a training run" in capsys.readouterr().err
