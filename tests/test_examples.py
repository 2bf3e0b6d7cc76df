"""The examples run, offline and as they stand; so does every Python block of the docs; every command in them parses."""

import json
import re
import runpy
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import modalign
import modalign.loading
from modalign.cli.app import app
from modalign.cli.flags import parse_flags
from modalign.cli.train import configure, job_of
from modalign.hookspecs import Register
from modalign.model import Model
from modalign.objectives import BradleyTerry
from modalign.registry import registry
from modalign.training.heads import add_heads
from modalign.training.job import run
from modalign_text.testing import tiny_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "core").rglob("README.md")) + sorted((ROOT / "plugins").rglob("README.md"))
SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", page.read_text(), re.M | re.S)
    return [textwrap.dedent(text) for language, text in found if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Every `modalign ...` in shell blocks, and in single backticks where it is a whole command."""
    text = page.read_text()
    shell = blocks(page, "bash", "sh", "console", "shell")
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(modalign [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for line in lines:
        for part in re.split(r"&&|\||;(?=\s)", line.split(" #")[0]):
            words = shlex.split(part.strip().removeprefix("$ "))
            while words and ("=" in words[0] and not words[0].startswith("-")):
                words.pop(0)
            if "-m" in words and words[words.index("-m") + 1 :][:1] == ["modalign"]:
                words = words[words.index("-m") + 1 :]
            named = words in (["modalign", "data", "check"], ["modalign", "train"], ["modalign", "evaluate"])
            if words[:1] == ["modalign"] and len(words) > 1 and "..." not in words and not named:
                yield words[1:]


COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs_as_it_stands(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # an experiment of minutes, here of seconds: tests/text/multimodal/test_questions.py runs it whole
    short = [
        "--teach_steps",
        "2",
        "--spoil_steps",
        "1",
        "--align_steps",
        "1",
        "--reward_steps",
        "1",
        "--samples",
        "4",
        "--best_of",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", [name, *(short if name == "questions.py" else [])])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    said = capsys.readouterr().out.strip().splitlines()[-1]
    (number,) = re.findall(r"(?:loss|loss is|accuracy) (\d\.\d+)", said)
    # log 2 and 1 are the losses at the start; a share of right pairs is 1/2 by chance
    low, high = {
        "dpo.py": (0, 0.6931),
        "custom_objective.py": (0, 1),
        "reward.py": (0.5, 1.01),
        "pictures.py": (0.99, 1.01),  # the words are the same in every row: by words alone it is 1/2
        "questions.py": (-0.01, 1),
        "safesora.py": (0, 1),
    }[name]
    assert low < float(number) < high, said


def test_the_config_of_the_examples_trains() -> None:
    tiny_model("m")
    pairs()
    flags = ["--model", "m", "--max_steps", "1", "--output_dir", "run", "--gradient_accumulation_steps", "1"]
    config = configure(str(ROOT / "examples" / "dpo.yaml"), flags)
    assert config is not None
    assert run(config).steps == 1


def pairs() -> None:
    words = ("red", "green", "blue", "one", "two", "three", "big", "small")
    rows = [{"prompt": f"Say {word}.", "chosen": f" {word}", "rejected": " no"} for word in words]
    for name in ("pairs.jsonl", "test.jsonl"):
        Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


# --- docs ----------------------------------------------------------------------------------------------------------


class _Theirs:
    """The plugin `modalign-x` of docs/plugins.md."""

    @modalign.hookimpl
    def register_objectives(self, register: Register) -> None:
        register("dpo", "modalign.objectives.dpo:DPO")


# these need their files: tests/docs walks them
WALKED = {
    ROOT / "README.md",
    *(
        ROOT / f"docs/{name}.md"
        for name in (
            "media",
            "generators",
            "text-to-image",
            "text-to-audio",
            "text-to-video",
            "composing",
            "a-modality",
        )
    ),
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page not in WALKED], ids=lambda page: page.stem
)
def test_the_python_of_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs()
    folder = tiny_model("tiny")
    load = modalign.loading.load
    if "runs/reward/final" in page.read_text():
        judge = load(folder)
        add_heads(judge, BradleyTerry(), seed=0)
        judge.save("runs/reward/final")

    def local(model: object, **settings: object) -> Model:
        if (path := Path(str(model))).is_dir():
            return load(path, **settings)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)), "an id on the hub, which tests do not ask"
        return load(folder, **settings)

    monkeypatch.setattr(modalign, "load", local, raising=False)
    monkeypatch.setattr(modalign.loading, "load", local)
    monkeypatch.syspath_prepend(".")
    with ExitStack() as stack:
        stack.enter_context(registry.scoped(_Theirs(), name="x", distribution="modalign-x"))
        Path("page.py").write_text("\n".join(blocks(page, "python")))
        runpy.run_path("page.py", run_name="page")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.stem)
def test_a_config_of_a_page_is_one(page: Path) -> None:
    for block in blocks(page, "yaml"):
        Path("page.yaml").write_text(block)
        assert configure("page.yaml") is not None


def test_there_are_commands_to_parse() -> None:
    assert len(COMMANDS) > 10
    assert {words[0] for _, words in COMMANDS} >= {"train", "evaluate", "generate", "data", "plugins", "doctor"}


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.stem}-{number}" for number, (page, _) in enumerate(COMMANDS)]
)
def test_a_command_of_the_docs_is_one(page: Path, words: list[str]) -> None:
    command, *rest = words
    if rest[-1:] == ["--help"]:
        rest = rest[:-1]
    if command not in ("train", "evaluate"):
        app.parse_args(words, exit_on_error=False, print_error=False)
        return
    if not rest or rest[0] in ("OBJECTIVE", "CONFIG.yaml", "RUN"):  # what any of them is like
        rest = ["dpo", *rest[1:]]
    target, *flags = rest
    if target.endswith((".yaml", ".yml")) or "/" in target:  # a config, or a run folder
        name = "dpo"
    else:
        name = target if target in registry.entries("objectives") else "dpo"
        assert target == name or f'"{target}"' in page.read_text(), f"no objective {target}"
    flags = [flag for flag in flags if not (command == "evaluate" and flag == "--json")]
    if "[OPTIONS]" not in flags:
        parse_flags(job_of(name), flags)
