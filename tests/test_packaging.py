"""The distribution: its packages, entry points and extras agree with the folders."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())


def test_every_plugin_folder_is_a_package_of_the_wheel() -> None:
    listed = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert listed == {"core/modalign"} | {f"plugins/{name}/modalign_{name}" for name in PLUGINS}
    assert all((ROOT / package / "__init__.py").is_file() for package in listed)


def test_every_package_says_that_it_is_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert all((ROOT / package / "py.typed").is_file() for package in packages)


def test_every_plugin_has_an_entry_point_that_names_its_extra() -> None:
    wanted = {name: f"modalign_{name} [{name}]" for name in PLUGINS} | {"core": "modalign.builtin"}
    assert PROJECT["project"]["entry-points"]["modalign.v1"] == wanted


def test_the_installed_distribution_has_the_same_entry_points() -> None:
    installed = {
        one.name: one.value for one in entry_points(group="modalign.v1") if one.dist and one.dist.name == "modalign"
    }
    assert installed == PROJECT["project"]["entry-points"]["modalign.v1"]


def test_the_extra_all_holds_every_plugin() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (whole,) = extras["all"]
    assert set(PLUGINS) <= Requirement(whole).extras
    assert set(PLUGINS) <= set(extras)


def test_torch_is_pinned_below_the_release_that_torchaudio_cannot_load_with() -> None:
    found = [Requirement(one) for one in requires("modalign") or () if Requirement(one).name == "torch"]
    assert [str(one.specifier) for one in found if one.marker is None] == ["<2.15,>=2.11"]


@pytest.mark.parametrize(
    "command", ['pip install -e ".[all]" && modalign quickstart', 'pip install -e ".[all,dev]" && pytest']
)
def test_the_readme_has_both_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_the_version_stands_in_one_voice() -> None:
    import modalign

    assert modalign.__version__ == PROJECT["project"]["version"]
    assert re.search(rf"^## {re.escape(modalign.__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = [ROOT / one for one in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    wanted = {
        path.relative_to(package.parent).as_posix()
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    template = ROOT / "docs" / "template"  # what `modalign plugins new` copies
    held = {file for file in template.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert held
    assert found == wanted | {f"modalign/template/{file.relative_to(template).as_posix()}" for file in held}
