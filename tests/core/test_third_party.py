"""A stranger's distribution, built and installed by its own pyproject, comes in by the same door as ours."""

import json
from pathlib import Path

import pytest

import stranger
from modalign.cli.app import app
from modalign.errors import ConfigError
from stranger import install, run

PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "modalign-smell"
version = "0.3"
dependencies = ["modalign"]

[project.entry-points."modalign.v1"]
smell = "modalign_smell"
"""

INIT = '''
"""Smells for modalign."""

import modalign


@modalign.hookimpl
def register_modalities(register):
    register("smell", "modalign_smell.modality:Smell", blocks=("smell",), probe="modalign_smell.modality:examples")


@modalign.hookimpl
def register_objectives(register):
    register("hinge", "modalign_smell.hinge:Hinge")
'''

MODALITY = '''
"""What reads and shows a smell: a word in angle brackets."""

import html
import re
from pathlib import Path
from typing import final

from modalign.content import Part
from modalign.errors import DataError
from modalign.roles import Modality


@final
class Smell(Modality):
    name = "smell"
    blocks = ("smell",)

    def read(self, block, *, root):
        value = block.get("smell")
        if not isinstance(value, str) or not re.fullmatch(r"<[a-z]+>", value):
            raise DataError("a smell is a word in angle brackets", field="smell", got=repr(value), fix="write '<rose>'")
        return Part(modality="smell", value=value.encode())

    def block(self, part):
        return {"type": "smell", "smell": part.value.decode()}

    def save(self, part, stem):
        file = stem.with_suffix(".smell")
        file.write_bytes(part.value)
        return file

    def show(self, part):
        return f"<i>{html.escape(part.value.decode())}</i>"


def examples():
    return [Part(modality="smell", value=value) for value in (b"<rose>", b"<smoke>", b"<rain>")]
'''

HINGE = '''
"""Hinge loss over pairs, Zhao et al., https://arxiv.org/abs/2305.10425 (SLiC-HF)."""

from typing import ClassVar, final

from modalign.objectives.base import Loss, Needs, Objective, pair_logps, pair_metrics


@final
class Hinge(Objective):
    needs: ClassVar[Needs] = Needs(roles=("policy", "reference"))
    beta: float = 0.1

    def __call__(self, scores, targets, statistics=None):
        chosen, rejected = pair_logps(scores["policy"], targets)
        reference_chosen, reference_rejected = pair_logps(scores["reference"], targets)
        chosen, rejected = self.beta * (chosen - reference_chosen), self.beta * (rejected - reference_rejected)
        weights = targets.weights.double()
        losses = (1 - (chosen - rejected)).clamp(min=0)
        return Loss(
            sum=(losses * weights).sum(),
            count=weights.sum(),
            metrics=pair_metrics(chosen.detach(), rejected.detach(), weights),
        )

    def count(self, targets, tokens):
        return targets.weights.double().sum()
'''

USE = """
import json
from modalign.registry import registry
from modalign.testing.conformance import check_plugin

(record,) = [one for one in registry.plugins() if not one.own]
part = registry.modality("smell").read({"type": "smell", "smell": "<rose>"}, root=None)
print(json.dumps({
    "distribution": record.distribution,
    "version": record.version,
    "status": record.status,
    "objective": registry.objective("hinge")(beta=0.5).beta,
    "ours": registry.objective("dpo").__name__,
    "part": part.value.decode(),
    "laws": check_plugin("smell"),
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees the installed packages, with the stranger's distribution installed into it."""
    folder = tmp_path_factory.mktemp("stranger")
    source = folder / "modalign-smell"
    package = source / "modalign_smell"
    package.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    for name, text in (("__init__", INIT), ("modality", MODALITY), ("hinge", HINGE)):
        (package / f"{name}.py").write_text(text)

    python = stranger.environment(folder / "env")
    install(python, source)
    return python


def test_a_strangers_distribution_is_found_used_and_keeps_the_contract(environment: Path) -> None:
    found = json.loads(run(environment, "-c", USE).splitlines()[-1])
    laws = found.pop("laws")
    assert found == {
        "distribution": "modalign-smell",
        "version": "0.3",
        "status": "ok",
        "objective": 0.5,
        "ours": "DPO",
        "part": "<rose>",
    }
    assert "modality smell: a bad block is a clear error" in laws
    assert "objective hinge: swapping chosen and rejected negates the margin" in laws


def test_pytest_checks_it_by_name(environment: Path) -> None:
    out = run(
        environment, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--pyargs", "modalign.testing", "--plugin", "smell"
    )
    assert "objective hinge: the same scores give the same loss" in out
    assert "failed" not in out


# --- `modalign plugins new` ----------------------------------------------------------------------------------------


def command(*words: str) -> object:
    return app(["plugins", "new", *words], exit_on_error=False, print_error=False, result_action="return_value")


def test_a_new_plugin_passes_its_tests_as_it_is_written(environment: Path, tmp_path: Path) -> None:
    place = tmp_path / "modalign-heart-rate"
    command("heart_rate", "--folder", str(place))
    install(environment, place)
    out = run(environment, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(place))
    assert "2 passed" in out
    listed = json.loads(run(environment, "-m", "modalign", "plugins", "--json"))
    (found,) = [one for one in listed["plugins"] if one["name"] == "heart_rate"]
    assert (found["distribution"], found["status"]) == ("modalign-heart-rate", "ok")
    assert found["provides"].keys() == {"modalities", "encoders"}


def test_what_is_written_has_the_name_and_nothing_of_the_template(tmp_path: Path) -> None:
    command("smoke", "--folder", str(tmp_path / "new"))
    files = [file for file in (tmp_path / "new").rglob("*") if file.is_file()]
    assert len(files) >= 7
    for file in files:
        assert "series" not in file.read_text().lower()
        assert "series" not in str(file.relative_to(tmp_path))
    assert (tmp_path / "new" / "modalign_smoke" / "modality.py").read_text().count("SmokeModality") >= 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Smell", "small letters, digits and single underscores"),
        ("my-smell", "small letters"),
        ("image", "there is a modality 'image' already"),
    ],
)
def test_a_name_that_cannot_be_is_said(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        command(name, "--folder", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="the folder has something in it"):
        command("smoke", "--folder", str(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
