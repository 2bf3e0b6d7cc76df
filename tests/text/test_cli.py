"""The command line as a user meets it: train, resume, evaluate and generate with a tiny model, and what --help says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file

from modalign.cli import main
from modalign.failpoints import active, fired
from modalign.testing.processes import in_child
from modalign.training.storage.metricslog import read_metrics
from modalign_text.testing import tiny_model

WORDS = ("red", "green", "blue", "one", "two", "three", "big", "small")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with a model `m` and pairs, to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")  # what the command line sets goes with the test
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    copytree(model, "m")
    write("pairs.jsonl", WORDS)
    write("test.jsonl", WORDS[:5])
    yield tmp_path
    torch.set_num_threads(threads)


def write(name: str, words: tuple[str, ...]) -> None:
    rows = [{"prompt": f"say {word}", "chosen": f" {word}", "rejected": f" not {word}"} for word in words]
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line here; gives exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


TRAIN = ("train", "dpo", "--model", "m", "--data", "pairs.jsonl", "--learning_rate", "1e-2")
LORA = ("--model.adapter.r", "2", "--model.adapter.target_modules", "q_proj", "v_proj")


def metrics(folder: str) -> list[dict[str, float]]:
    """Metrics without those that measure time."""
    rows = read_metrics(Path(folder) / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows]


def same_weights(one: str, other: str) -> bool:
    first, second = (load_file(next(Path(folder, "final").glob("*.safetensors"))) for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- train ---------------------------------------------------------------------------------------------------------


def test_a_model_is_trained_by_flags_and_again_by_the_config_it_left(cli: Cli) -> None:
    code, out, _ = cli(*TRAIN, *LORA, "--output_dir", "runs/a", "--per-device-train-batch-size", "2")
    assert (code, out) == (0, f"trained 4 steps; the model is in {Path('runs/a/final')}\n")
    assert {path.name for path in Path("runs/a").iterdir()} >= {
        "config.yaml", "run.json", "metrics.jsonl", "checkpoints", "final", "README.md",
    }  # fmt: skip
    assert cli("train", "runs/a/config.yaml", "--output_dir", "runs/b")[0] == 0
    assert metrics("runs/a") == metrics("runs/b")
    assert same_weights("runs/a", "runs/b")
    assert cli("train", "runs/a/config.yaml", "--output_dir", "runs/c", "--objective.beta", "0.5")[0] == 0
    # both start at log 2; with a larger beta the loss of the second step is another
    assert metrics("runs/c")[0]["loss"] == metrics("runs/a")[0]["loss"]
    assert metrics("runs/c")[1]["loss"] != metrics("runs/a")[1]["loss"]


def test_a_killed_run_resumes_to_the_numbers_of_one_that_was_not(cli: Cli) -> None:
    flags = (*TRAIN, *LORA, "--save_steps", "2")
    assert cli(*flags, "--output_dir", "whole")[0] == 0

    def killed() -> None:
        with active("forward=kill@4"):
            main([*flags, "--output_dir", "killed"])

    assert in_child(killed) == -9
    assert len(metrics("killed")) == 3
    assert cli(*flags, "--output_dir", "killed", "--resume_from_checkpoint", "auto")[0] == 0
    assert metrics("killed") == metrics("whole")
    assert same_weights("killed", "whole")


def test_sigterm_saves_ends_with_75_and_can_be_resumed(cli: Cli) -> None:
    assert cli(*TRAIN, "--output_dir", "whole")[0] == 0
    with active("forward=signal:SIGTERM@3"):
        code, out, err = cli(*TRAIN, "--output_dir", "stopped")
        assert fired() == {"forward": 1}
    assert (code, out) == (75, "")
    assert re.search(r"modalign: preempted: .* was saved; to mend: .*resume_from_checkpoint=auto", err)
    assert cli("train", "stopped/config.yaml", "--resume_from_checkpoint", "auto")[0] == 0
    assert metrics("stopped") == metrics("whole")
    assert same_weights("stopped", "whole")


# --- evaluate ------------------------------------------------------------------------------------------------------


def evaluated(cli: Cli, *words: str) -> dict[str, dict[str, float]]:
    code, out, err = cli("evaluate", *words, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("settings", [LORA, (), (*LORA, "--merge_adapter"), (*LORA, "--reference", "copy")])
def test_a_run_is_measured_against_where_it_started(cli: Cli, settings: tuple[str, ...]) -> None:
    # its own last evaluation, with the weights and the reference in memory, is what `evaluate` finds on disk
    assert cli(*TRAIN, *settings, "--eval_data", "test.jsonl", "--output_dir", "run")[0] == 0
    last = {name: value for name, value in metrics("run")[-1].items() if name.startswith("eval_")}
    found = evaluated(cli, "run", "--data", "test.jsonl")
    assert found["samples"] == 5
    assert last["eval_rewards/margins"] > 0.01
    for name, value in found["metrics"].items():
        assert value == pytest.approx(last[f"eval_{name}"], rel=1e-4, abs=1e-5), name
    assert evaluated(cli, "run") == found  # the run's own eval_data, where no other are named


def test_a_reward_model_is_trained_and_measured(cli: Cli) -> None:
    assert cli("train", "reward", *TRAIN[2:], *LORA, "--num_train_epochs", "3", "--output_dir", "run")[0] == 0
    found = evaluated(cli, "run", "--data", "test.jsonl")
    assert found["metrics"]["accuracy"] > 0.5
    code, out, _ = cli("evaluate", "run", "--data", "test.jsonl")
    assert code == 0
    assert re.search(
        r"5 samples of test.jsonl\n.*accuracy +\d\.\d{4}  95 % interval 0\.\d{3} to \d\.\d{3}\n", out, re.S
    )
    # Wilson, all of 5: 5 / (5 + 1.96^2) = 0.5655
    assert found["metrics"]["accuracy"] < 1 or found["intervals_95"]["accuracy"] == pytest.approx([0.5655, 1], abs=1e-4)
    assert evaluated(cli, "reward", "--model", "run/final", "--data", "test.jsonl")["metrics"] == found["metrics"]


def test_a_run_folder_called_like_an_objective_is_not_asked_where_a_model_is_given(cli: Cli) -> None:
    assert cli(*TRAIN, *LORA, "--output_dir", "dpo")[0] == 0
    found = evaluated(cli, "./dpo", "--data", "test.jsonl")
    # read as the run, the word would bring the run's new adapters to a model that has its own
    assert evaluated(cli, "dpo", "--model", "dpo/final", "--data", "test.jsonl")["metrics"] == found["metrics"]


def test_settings_of_the_training_data_do_not_reach_the_data_of_a_test(cli: Cli) -> None:
    limits = ("--data.limit", "3", "--data.max_length", "16", "--data.on_too_long", "skip")
    assert cli(*TRAIN, *limits, "--eval_data", "test.jsonl", "--eval_data.limit", "2", "--output_dir", "run")[0] == 0
    assert evaluated(cli, "run", "--data", "pairs.jsonl")["samples"] == 8
    assert evaluated(cli, "run", "--data=pairs.jsonl", "--data.limit", "4")["samples"] == 4
    assert evaluated(cli, "run")["samples"] == 2
    code, out, _ = cli(
        "evaluate", "run", "--data", "pairs.jsonl", "--data.max_length", "16", "--data.on_too_long", "skip"
    )
    assert code == 0
    assert "on 4 samples of pairs.jsonl, 4 skipped: too long" in out  # say three, say green: longer than 16 bytes


def test_a_run_without_a_final_model_says_how_to_finish_it(cli: Cli) -> None:
    with active("forward=signal:SIGTERM@1"):
        assert cli(*TRAIN, "--output_dir", "run")[0] == 75
    code, _, err = cli("evaluate", "run", "--data", "test.jsonl")
    assert code == 2
    assert "modalign train run/config.yaml --resume_from_checkpoint auto" in err


# --- generate ------------------------------------------------------------------------------------------------------


def test_prompts_are_answered_and_what_is_written_can_be_read(cli: Cli) -> None:
    code, out, _ = cli("generate", "--model", "m", "--prompt", "hi", "--prompt", "ho", "--max-new-tokens", "3")
    assert code == 0
    assert re.search(r"hi\n->.*\n\n.*ho\n->", out)
    answered = ("--output", "answers.jsonl", "--max_new_tokens", "8", "--temperature", "1", "--limit", "3")
    code, out, _ = cli("generate", "--model", "m", "--data", "pairs.jsonl", *answered)
    assert (code, out) == (0, "3 responses in answers.jsonl\n")
    rows = [json.loads(row) for row in Path("answers.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["say red", "say green", "say blue"]
    assert cli("data", "check", "answers.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --prompt WORDS or --data PATH"),
        (("--prompt", "a", "--data", "pairs.jsonl"), "found: --prompt and --data"),
        (("--prompt", "a", "--output", "pairs.jsonl"), "the output file is there already"),
        (("--prompt", "a", "--output", "none/x.jsonl"), "folder is not there"),
        (("--prompt", "a", "--temperature", "-1"), "setting 'temperature': input should be greater than or equal to 0"),
    ],
)
def test_generate_refuses_what_it_cannot_do(cli: Cli, words: tuple[str, ...], said: str) -> None:
    code, _, err = cli("generate", "--model", "m", *words)
    assert code == 2
    assert said in err
    assert err.count("modalign: ") == 1


# --- help and failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--help",), ["train", "Measure a model", "doctor"]),
        (("train", "--help"), ["modalign train OBJECTIVE --model PATH --data PATH", "ipo, kto"]),
        (
            ("train", "dpo", "--help"),
            ["--learning_rate", "Peak learning rate", "--objective.beta", "--model.adapter.r"],
        ),
        (("train", "dpo", "--seed", "1", "-h"), ["--learning_rate"]),
        (("evaluate", "--help"), ["A run folder", "--json"]),
        (("generate", "--help"), ["--max_new_tokens"]),
        (("data", "check", "--help"), ["--bad_rows"]),
        (("quickstart", "--help"), ["--output_dir"]),
        (("plugins", "--help"), ["--json"]),
        (("doctor", "--help"), ["--json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_help_is_there(cli: Cli, words: tuple[str, ...], said: list[str]) -> None:
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    assert all(word in out for word in said), out
    assert ">>>" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "--model", "m", "--promt", "x"), "Did you mean --prompt?"),
        (("data", "chek", "x"), 'Did you mean "check"?'),
        (("trian", "dpo"), 'Did you mean "train"?'),
        (("evaluate", "dpo", "--modle", "m"), "did you mean --model?"),
        (("evaluate", "m"), "no objective 'm'"),
        (("evaluate", "./m"), "this folder is no run"),
        (("train", "./m"), "neither an objective nor a config file"),
    ],
)
def test_a_slip_is_met_with_what_was_meant(cli: Cli, words: tuple[str, ...], said: str) -> None:
    code, _, err = cli(*words)
    assert code in (2, 4)
    assert said in err
    assert err.count("\n") == 1


def test_debug_shows_where_an_error_was_raised(cli: Cli) -> None:
    assert "Traceback" not in cli("train", "dpo", "--model", "m", "--data", "none.jsonl")[2]
    code, _, err = cli("train", "dpo", "--debug", "--model", "m", "--data", "none.jsonl")
    assert code == 3
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("modalign: data: none.jsonl")


def test_control_characters_of_bad_input_are_not_played_to_the_terminal(cli: Cli) -> None:
    assert "\x1b" not in cli("train", "dpo", "--model", "m", "--data", "\x1b[31mnone")[2]


def test_a_process_ends_as_the_command_does_and_says_nothing_that_is_not_ours() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_DISABLE")}
    done = subprocess.run(
        [sys.executable, "-m", "modalign", *TRAIN, "--output_dir", "run", "--max_steps", "1"],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained 1 steps; the model is in run/final\n"
    ours = r"responses share|linear_logprob|step 1/1"
    assert [line for line in done.stderr.splitlines() if not re.match(ours, line)] == []
