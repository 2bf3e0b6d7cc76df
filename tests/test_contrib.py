"""What others add: separate distributions in `contrib`, which nothing of ours knows of, installed as anybody's are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import stranger
from stranger import install, run

ROOT = Path(__file__).parent.parent
CONTRIB = sorted(one.parent for one in (ROOT / "contrib").glob("*/pyproject.toml"))
OURS = [file for room in ("core", "plugins") for file in (ROOT / room).rglob("*") if file.suffix in (".py", ".jinja")]
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-q")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with every distribution of `contrib` in it."""
    python = stranger.environment(tmp_path_factory.mktemp("contrib") / "env")
    for folder in CONTRIB:
        install(python, folder)
    return python


def test_there_is_one() -> None:
    assert ROOT / "contrib/action" in CONTRIB


@pytest.mark.parametrize("folder", CONTRIB, ids=lambda one: one.name)
def test_nothing_of_ours_names_it(folder: Path) -> None:
    assert len(OURS) > 300
    named = re.compile(rf"modalign[_-]{folder.name}")
    assert [file for file in OURS if named.search(file.read_text())] == []


@pytest.mark.parametrize("folder", CONTRIB, ids=lambda one: one.name)
def test_it_is_named_and_laid_out_as_the_docs_say(folder: Path) -> None:
    said = tomllib.loads((folder / "pyproject.toml").read_text())
    name, package = said["project"]["name"], f"modalign_{folder.name}"
    assert name == f"modalign-{folder.name}"
    assert said["project"]["entry-points"] == {"modalign.v1": {folder.name: package}}
    assert all((folder / one).exists() for one in ("README.md", "tests", f"{package}/py.typed"))
    assert f"]({folder.name}/README.md)" in (ROOT / "contrib/README.md").read_text()


@pytest.mark.parametrize("folder", CONTRIB, ids=lambda one: one.name)
def test_it_is_found_beside_ours_where_it_is_installed(folder: Path, environment: Path) -> None:
    listed = json.loads(run(environment, "-m", "modalign", "plugins", "--json"))
    (found,) = [one for one in listed["plugins"] if one["name"] == folder.name]
    assert (found["distribution"], found["status"]) == (f"modalign-{folder.name}", "ok")
    assert {one["name"] for one in listed["plugins"]} >= {"core", "text", "image", "audio", "video"}


@pytest.mark.parametrize("folder", CONTRIB, ids=lambda one: one.name)
def test_it_keeps_the_contract_and_does_what_it_says(folder: Path, environment: Path) -> None:
    quick = [str(ROOT / "contrib/action/tests/test_bins.py")] if folder.name == "action" else []
    out = run(environment, *PYTEST, "--pyargs", "modalign.testing", *quick, "--plugin", folder.name)
    (passed,) = re.findall(r"\b(\d+) passed", out)
    assert int(passed) > (60 if quick else 10)
    assert "skipped" not in out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", CONTRIB, ids=lambda one: one.name)
def test_its_own_tests_pass(folder: Path, environment: Path) -> None:
    out = run(environment, *PYTEST, str(folder))
    assert "skipped" not in out
