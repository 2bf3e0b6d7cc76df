"""docs/tasks.md: every config trains on its row, and there is one for every task of the matrix."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from modalign.training.storage.metricslog import read_metrics
from task_matrix import ROWS
from tiny_hub import BLOCK, QUIET, run

PAGE = (Path(__file__).parents[2] / "docs/tasks.md").read_text()
TASKS = re.findall(r'^```yaml title="tasks/(.*?)\.yaml"$', PAGE, re.M)

pytestmark = [*QUIET, pytest.mark.usefixtures("walked")]


@pytest.mark.parametrize("task", TASKS)
def test_a_config_trains_on_its_row(task: str) -> None:
    assert run(f"modalign train tasks/{task}.yaml") in (0, None)
    losses = [row["loss"] for row in read_metrics(Path(f"runs/{task}/metrics.jsonl")) if "loss" in row]
    assert losses == [pytest.approx(math.log(2), rel=1e-6)]
    assert Path(f"runs/{task}/final").is_dir()


def test_the_commands_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    (commands,) = [text for language, _, text in re.findall(BLOCK, PAGE, re.M | re.S) if language == "bash"]
    check, train = commands.splitlines()
    assert run(check) in (0, None)
    assert "every row can be used" in capsys.readouterr().out
    assert f"modalign train tasks/{TASKS[0]}.yaml" == train


@pytest.mark.parametrize("objective", ["sft", "kto"])
def test_another_objective_trains_on_the_same_row(objective: str) -> None:
    said = Path("tasks/any-to-any.yaml").read_text().replace("{name: dpo}", f"{{name: {objective}}}")
    Path(f"tasks/{objective}.yaml").write_text(said)
    assert run(f"modalign train tasks/{objective}.yaml --output_dir runs/any-{objective}") in (0, None)


def test_every_task_of_the_matrix_has_one() -> None:
    whole = "text-image-audio-video-to-text-image-audio-video"
    named = {row.name.replace(whole, "any-to-any") for row in ROWS if "(" not in row.name and "action" not in row.name}
    assert set(TASKS) == named
    assert "contrib/action" in PAGE
    assert "native.md" in PAGE
