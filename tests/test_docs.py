"""The docs: every hook, extra, objective and command has its place in them, links lead somewhere, and they build."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from modalign.hookspecs import Hooks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HOOKS = [name for name in vars(Hooks) if name.startswith("register_")]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    assert f"`{hook}`" in (DOCS / "plugins.md").read_text()


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_documented(extra: str) -> None:
    assert f"`{extra}`" in (DOCS / "index.md").read_text()


def test_every_objective_is_documented() -> None:
    from modalign.registry import registry

    text = (DOCS / "objectives.md").read_text()
    missing = [name for name in registry.entries("objectives") if f"`{name}`" not in text]
    assert not missing


def test_every_setting_of_a_training_run_is_documented() -> None:
    from modalign.config import AdapterConfig, DataConfig, GenerationConfig, ModelConfig
    from modalign.training.config import TrainConfig

    undocumented = [
        f"{config.__name__}.{name}"
        for config in (TrainConfig, ModelConfig, DataConfig, AdapterConfig, GenerationConfig)
        for name, field in config.model_fields.items()
        if not field.description
    ]
    assert not undocumented


@pytest.mark.parametrize(
    "page", sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]), ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {page.relative_to(DOCS) for page in DOCS.rglob("*.md")}
    assert listed == {str(page) for page in pages if page.parts[0] != "template"}  # which is a plugin, and no page


def test_the_site_builds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
